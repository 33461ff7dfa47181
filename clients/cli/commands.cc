#include "clients/cli/commands.h"

#include <cstdio>
#include <iostream>
#include <iterator>
#include <map>

#include "absl/strings/str_cat.h"
#include "clients/cli/follow.h"
#include "clients/cli/progress.h"
#include "clients/cli/text.h"
#include "clients/cpp/orchestrator_client.h"
#include "clients/cpp/sidecar_client.h"
#include "clients/orchestrator/submission.h"
#include "common/files.h"
#include "common/yaml.h"

namespace flowmesh::cli {
namespace {

using client::OrchestratorClient;
using client::SidecarClient;

constexpr absl::Duration kFirstLook = absl::Milliseconds(200);
constexpr absl::Duration kSidecarStarts = absl::Seconds(5);

void PrintText(const std::string& text) { std::fputs(text.c_str(), stdout); }
void PrintJson(const Json& json) { PrintText(absl::StrCat(DumpJson(json, 2), "\n")); }

OrchestratorClient Orchestrator(const Options& options) {
  return OrchestratorClient(options.orchestrator, options.token);
}

// The last component of `metadata.name` says which stage a record is.
std::string NameOf(const Json& task) {
  for (const char* key : {"graph_node_name", "name"}) {
    if (const auto name = task.find(key); name != task.end() && name->is_string()) return *name;
  }
  return "";
}

std::string RecordLine(const Json& record) {
  const std::string name = NameOf(record);
  std::string line = absl::StrCat(name.empty() ? record.value("task_id", "") : name, "  ",
                                  record.value("status", ""));
  if (record.value("assigned_worker", Json()).is_string()) {
    absl::StrAppend(&line, " on ", record["assigned_worker"].get<std::string>());
  }
  if (record.value("waiting_for", Json()).is_string()) {
    absl::StrAppend(&line, ", waits for ", record["waiting_for"].get<std::string>());
  }
  for (const char* key : {"error", "last_error"}) {
    if (record.value(key, Json()).is_string()) {
      absl::StrAppend(&line, ": ", record[key].get<std::string>());
    }
  }
  return line;
}

// Also of a task that waits for another try.
bool HasFailed(const Json& record) {
  return record.value("status", "") == "FAILED" ||
         record.value("last_failed_worker", Json()).is_string();
}

// The results of tasks that are DONE, as far as the orchestrator has them.
void PrintResults(OrchestratorClient& orchestrator, const std::vector<Json>& records) {
  for (const Json& record : records) {
    if (record.value("status", "") != "DONE") continue;
    const std::string id = record.value("task_id", "");
    const std::string name = NameOf(record);
    if (records.size() > 1) PrintText(absl::StrCat("== ", name.empty() ? id : name, "\n"));
    const absl::StatusOr<Json> stored = orchestrator.Result(id);
    if (stored.ok() && stored->is_object()) {
      PrintText(ResultText(stored->contains("result") ? (*stored)["result"] : *stored));
    } else if (!stored.ok() && !absl::IsNotFound(stored.status())) {
      PrintText(absl::StrCat("the result cannot be had: ", Message(stored.status()), "\n"));
    } else {
      PrintText(
          absl::StrCat("no result was sent (spec.output.destination is not of type http): it "
                       "is in the results folder of worker ",
                       JsonToText(record.value("assigned_worker", Json("?"))), "\n"));
    }
  }
}

// Follows tasks of an orchestrator to their end; exit status 0 when all are DONE.
absl::StatusOr<int> FollowRecords(OrchestratorClient& orchestrator,
                                  const std::vector<std::string>& ids, const Options& options,
                                  bool show, Interrupt& interrupt) {
  interrupt.ClearActions();  // it is looked at below
  ProgressLine line;
  size_t over = 0;
  std::string failed;  // what options.fail_fast stops at
  const auto on_change = [&](const Json& record) {
    over += client::IsOver(record) ? 1 : 0;
    if (options.fail_fast && HasFailed(record)) failed = RecordLine(record);
    if (options.json) return;
    if (!show && HasFailed(record) && !client::IsOver(record)) {
      line.Print(absl::StrCat(RecordLine(record), " (--fail-fast would stop here)"));
    }
    if (!show) return;
    line.Print(RecordLine(record));
    line.Show(absl::StrCat(Bar(static_cast<double>(over) / ids.size(), 24), " ", over, "/",
                           ids.size(), " tasks"));
  };
  const absl::StatusOr<std::vector<Json>> records =
      orchestrator.Wait(ids, on_change, [&] { return interrupt.requested() || !failed.empty(); });
  line.Clear();
  if (!failed.empty()) return absl::FailedPreconditionError(absl::StrCat("failed: ", failed));
  if (absl::IsCancelled(records.status())) {
    line.Print("no longer watching; the tasks go on");
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(records.status());
  bool all_done = true;
  for (const Json& record : *records) all_done = all_done && record["status"] == "DONE";
  if (options.json) {
    PrintJson(Json(*records));
  } else {
    PrintText(TaskTableText(Json(*records)));
    PrintResults(orchestrator, *records);
  }
  return all_done ? 0 : kExitFailed;
}

absl::StatusOr<int> SubmitToOrchestrator(const Options& options, const std::string& yaml,
                                         Interrupt& interrupt) {
  OrchestratorClient orchestrator = Orchestrator(options);
  ASSIGN_OR_RETURN(const Json tasks, orchestrator.Submit(yaml));
  std::vector<std::string> ids;
  for (const Json& task : tasks) ids.push_back(task.value("task_id", ""));
  if (options.wait || options.watch) {
    return FollowRecords(orchestrator, ids, options, options.watch, interrupt);
  }
  if (options.json) {
    PrintJson(tasks);
    return 0;
  }
  for (const Json& task : tasks) {
    const std::string name = NameOf(task);
    PrintText(absl::StrCat(task.value("task_id", ""), name.empty() ? "" : "  ", name, "\n"));
  }
  return 0;
}

absl::StatusOr<int> SubmitToSidecar(const Options& options, const Json& document,
                                    Interrupt& interrupt) {
  ASSIGN_OR_RETURN(const std::vector<orchestrator::PlannedTask> plan,
                   orchestrator::PlanSubmission(document));
  if (!plan.front().name.empty()) {
    return absl::InvalidArgumentError(
        "a sidecar takes single tasks, and this document has stages: use --orchestrator, or "
        "`flowmeshctl run`");
  }
  SidecarClient sidecar(options.sidecar);
  AwaitSidecar(sidecar);
  ASSIGN_OR_RETURN(const v1::SubmitTaskResponse accepted, sidecar.Submit(document));
  if (options.wait || options.watch) {
    return FollowTask(sidecar, accepted.task_id(),
                      {.json = options.json, .show = options.watch, .cancel_on_interrupt = false},
                      interrupt);
  }
  if (options.json) {
    PrintJson({{"task_id", accepted.task_id()},
               {"worker_id", accepted.worker_id()},
               {"already_known", accepted.already_known()}});
  } else {
    PrintText(absl::StrCat(accepted.task_id(), "\n"));
  }
  return 0;
}

}  // namespace

absl::StatusOr<Document> ReadDocument(const std::string& file) {
  Document document;
  const bool is_stdin = file == "-";
  const std::string name = is_stdin ? "stdin" : file;
  if (is_stdin) {
    document.yaml = std::string(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    ASSIGN_OR_RETURN(document.yaml, ReadFile(file));
  }
  absl::StatusOr<Json> json = ParseYaml(document.yaml);
  if (!json.ok()) return Annotate(json.status(), name);
  document.json = *std::move(json);
  for (const std::string& key : orchestrator::UnreadKeys(document.json)) {
    std::fprintf(stderr, "WARNING: %s: ignored field %s\n", name.c_str(), key.c_str());
  }
  return document;
}

void AwaitSidecar(client::SidecarClient& sidecar) {
  if (sidecar.WaitUntilConnected(kFirstLook)) return;
  std::fprintf(stderr, "waiting for the sidecar at %s\n", sidecar.target().c_str());
  sidecar.WaitUntilConnected(kSidecarStarts);
}

absl::StatusOr<int> SubmitCommand(const Options& options, Interrupt& interrupt) {
  ASSIGN_OR_RETURN(const Document document, ReadDocument(options.file));
  return options.sidecar.empty() ? SubmitToOrchestrator(options, document.yaml, interrupt)
                                 : SubmitToSidecar(options, document.json, interrupt);
}

absl::StatusOr<int> WatchCommand(const Options& options, Interrupt& interrupt) {
  if (!options.orchestrator.empty()) {
    OrchestratorClient orchestrator = Orchestrator(options);
    return FollowRecords(orchestrator, {options.task_id}, options, /*show=*/true, interrupt);
  }
  SidecarClient sidecar(options.sidecar);
  AwaitSidecar(sidecar);
  return FollowTask(sidecar, options.task_id,
                    {.json = options.json, .show = true, .cancel_on_interrupt = false}, interrupt);
}

absl::StatusOr<int> ListCommand(const Options& options) {
  Json records = Json::array();
  if (!options.orchestrator.empty()) {
    OrchestratorClient orchestrator = Orchestrator(options);
    ASSIGN_OR_RETURN(records, orchestrator.Tasks());
    if (options.limit > 0 && records.size() > options.limit) {
      const auto surplus = static_cast<std::ptrdiff_t>(records.size() - options.limit);
      records.erase(records.begin(), records.begin() + surplus);
    }
  } else {
    SidecarClient sidecar(options.sidecar);
    ASSIGN_OR_RETURN(const v1::ListTasksResponse list, sidecar.List(options.limit));
    for (const v1::TaskRecord& record : list.tasks()) records.push_back(client::ToJson(record));
  }
  if (options.json) {
    PrintJson(records);
  } else {
    PrintText(TaskTableText(records));
  }
  return 0;
}

absl::StatusOr<int> ShowCommand(const Options& options) {
  Json record;
  if (!options.orchestrator.empty()) {
    OrchestratorClient orchestrator = Orchestrator(options);
    ASSIGN_OR_RETURN(record, orchestrator.Task(options.task_id));
    absl::StatusOr<Json> stored = orchestrator.Result(options.task_id);
    if (stored.ok() && stored->is_object()) {
      record["result"] = stored->contains("result") ? (*stored)["result"] : *stored;
    }
    if (!options.json) {  // what was handed in is known to whoever asks
      record.erase("raw_yaml");
      record.erase("parsed");
      record.erase("merge_key");
    }
  } else {
    SidecarClient sidecar(options.sidecar);
    ASSIGN_OR_RETURN(const v1::TaskRecord task, sidecar.Get(options.task_id));
    record = client::ToJson(task);
  }
  PrintJson(record);
  return 0;
}

absl::StatusOr<int> CancelCommand(const Options& options) {
  SidecarClient sidecar(options.sidecar);
  ASSIGN_OR_RETURN(const v1::CancelTaskResponse answer, sidecar.Cancel(options.task_id));
  if (options.json) {
    PrintJson({{"task_id", options.task_id}, {"was_active", answer.was_active()}});
  } else {
    PrintText(answer.was_active() ? "cancelled\n" : "it was over already\n");
  }
  return 0;
}

absl::StatusOr<int> WorkerCommand(const Options& options) {
  Json answer;
  if (!options.orchestrator.empty()) {
    OrchestratorClient orchestrator = Orchestrator(options);
    ASSIGN_OR_RETURN(answer, orchestrator.Workers());
    if (!options.json) PrintText(WorkersText(answer));
  } else {
    SidecarClient sidecar(options.sidecar);
    ASSIGN_OR_RETURN(const v1::GetWorkerResponse worker, sidecar.Worker());
    answer = client::ToJson(worker);
    if (!options.json) PrintText(SidecarText(answer));
  }
  if (options.json) PrintJson(answer);
  return 0;
}

absl::StatusOr<int> DrainCommand(const Options& options, Interrupt& interrupt) {
  SidecarClient sidecar(options.sidecar);
  ASSIGN_OR_RETURN(const v1::DrainResponse answer, sidecar.Drain());
  if (!options.json) {
    PrintText(absl::StrCat("draining; ", answer.tasks_running(), " tasks running\n"));
    std::fflush(stdout);
  }
  if (options.wait) {
    interrupt.ClearActions();  // it is looked at below
    const absl::Duration limit =
        options.timeout > 0 ? absl::Seconds(options.timeout) : absl::InfiniteDuration();
    const absl::Status gone = sidecar.WaitUntilGone(limit, [&] { return interrupt.requested(); });
    if (absl::IsCancelled(gone)) {
      std::fputs("no longer waiting; the drain goes on\n", stderr);
      return kExitInterrupted;
    }
    RETURN_IF_ERROR(gone);
  }
  if (options.json) {
    PrintJson({{"tasks_running", answer.tasks_running()}, {"ended", options.wait}});
  } else if (options.wait) {
    PrintText("ended\n");
  }
  return 0;
}

}  // namespace flowmesh::cli
