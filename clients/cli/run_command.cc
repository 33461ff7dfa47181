// `flowmeshctl run`: a document on this machine, without Redis and without an orchestrator. Stages
// run one after the other, and results are handed on by the orchestrator's own rules.
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/follow.h"
#include "clients/cli/text.h"
#include "clients/cpp/local_worker.h"
#include "clients/orchestrator/submission.h"
#include "clients/orchestrator/substitution.h"
#include "common/clock.h"
#include "common/env.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::cli {
namespace {

using client::SidecarClient;
using orchestrator::PlannedTask;
using orchestrator::StageMap;

absl::StatusOr<std::vector<PlannedTask>> Plan(const std::string& file) {
  ASSIGN_OR_RETURN(const Document document, ReadDocument(file));
  ASSIGN_OR_RETURN(std::vector<PlannedTask> plan, orchestrator::PlanSubmission(document.json));
  for (const PlannedTask& task : plan) {
    if (!task.after_ids.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("dependsOn: `run` knows only the stages of its own document, got \"",
                       task.after_ids[0], "\""));
    }
  }
  return plan;
}

// Results stay on this machine unless asked otherwise: an http destination names an orchestrator.
bool TakeHttpDestinationOut(Json& document) {
  const Field destination = Field(&document, "")["spec"]["output"]["destination"];
  const absl::StatusOr<std::string> type = destination["type"].StringOr("local");
  if (!type.ok() || ToLower(Trim(*type)) != "http") return false;
  document["spec"]["output"]["destination"] = {{"type", "local"}};
  return true;
}

// The agent configurations that lie beside a document come with it, unless AGENT_CONFIG_DIR names
// others.
std::filesystem::path ConfigurationsBeside(const std::string& file) {
  if (file == "-" || EnvReader(SystemEnv()).IsSet("AGENT_CONFIG_DIR")) return {};
  const std::filesystem::path folder =
      std::filesystem::absolute(file).parent_path() / "configurations";
  std::error_code ignored;
  return std::filesystem::is_directory(folder, ignored) ? folder : std::filesystem::path();
}

// Runs the tasks of one document on one sidecar.
class Runner {
 public:
  Runner(SidecarClient& sidecar, const Options& options, Interrupt& interrupt)
      : sidecar_(sidecar), options_(options), interrupt_(interrupt) {}

  absl::StatusOr<int> Run(std::vector<PlannedTask> plan) {
    for (const PlannedTask& task : plan) {
      stages_[task.name];  // names of later stages are known from the start
    }
    for (PlannedTask& task : plan) {
      ASSIGN_OR_RETURN(const int exit, RunOne(std::move(task)));
      if (exit != 0) {
        PrintJsonAnswer();
        return exit;
      }
    }
    PrintJsonAnswer();
    return 0;
  }

 private:
  absl::StatusOr<int> RunOne(PlannedTask task) {
    if (interrupt_.requested()) return kExitInterrupted;
    Json document = std::move(task.document);
    if (!task.name.empty()) {
      ASSIGN_OR_RETURN(document, orchestrator::RenderDocument(document, task.name, stages_));
    }
    if (!options_.deliver && TakeHttpDestinationOut(document) && !told_) {
      std::fputs(
          "note: results stay on this machine; --deliver sends them to spec.output.destination\n",
          stderr);
      told_ = true;
    }
    if (!task.name.empty() && !options_.json) std::fprintf(stderr, "== %s\n", task.name.c_str());
    ASSIGN_OR_RETURN(const v1::SubmitTaskResponse accepted, sidecar_.Submit(document));
    const absl::StatusOr<v1::TaskRecord> record =
        Follow(sidecar_, accepted.task_id(),
               {.json = false,
                .show = ::isatty(STDERR_FILENO) == 1 && !options_.json,
                .cancel_on_interrupt = true},
               interrupt_);
    if (interrupt_.requested()) {
      std::fputs("interrupted\n", stderr);
      return kExitInterrupted;
    }
    RETURN_IF_ERROR(record.status());
    return Finish(task.name, *record);
  }

  int Finish(const std::string& name, const v1::TaskRecord& record) {
    const Json json = client::ToJson(record);
    answer_[name] = json;
    if (record.state() != v1::SUCCEEDED) {
      std::fprintf(stderr, "%s%sfailed: %s\n", name.c_str(), name.empty() ? "" : " ",
                   record.error().c_str());
      PrintFilesOfFailed(record);
      return kExitFailed;
    }
    const Json result = json.value("result", Json::object());
    if (!options_.json) {
      std::fputs(ResultText(result).c_str(), stdout);
      std::fflush(stdout);
      std::fprintf(stderr, "files: %s\n", record.task_dir().c_str());
    }
    stages_[name] = {.task_id = record.task_id(),
                     .done = true,
                     .stored = {{"task_id", record.task_id()},
                                {"worker_id", record.worker_id()},
                                {"metadata", Json::object()},
                                {"received_at", FormatTimestamp(Clock::Real().Now())},
                                {"result", result}}};
    return 0;
  }

  // A lone task's record, or the records of the stages by name.
  void PrintJsonAnswer() const {
    if (!options_.json || answer_.empty()) return;
    const Json& shown = answer_.contains("") ? answer_[""] : answer_;
    std::printf("%s\n", DumpJson(shown, 2).c_str());
  }

  SidecarClient& sidecar_;
  const Options& options_;
  Interrupt& interrupt_;
  StageMap stages_;
  Json answer_ = Json::object();
  bool told_ = false;
};

}  // namespace

absl::StatusOr<int> RunCommand(const Options& options, Interrupt& interrupt) {
  ASSIGN_OR_RETURN(std::vector<PlannedTask> plan, Plan(options.file));
  if (!options.sidecar.empty()) {
    SidecarClient sidecar(options.sidecar);
    AwaitSidecar(sidecar);
    interrupt.ClearActions();  // it is looked at below
    return Runner(sidecar, options, interrupt).Run(std::move(plan));
  }
  interrupt.ClearActions();
  client::LocalWorkerOptions local;
  local.results_dir = std::filesystem::absolute(options.results);
  local.devices = options.device;
  local.agent_configurations = ConfigurationsBeside(options.file);
  const auto worker = client::LocalWorker::Start(local, [&] { return interrupt.requested(); });
  if (interrupt.requested()) return kExitInterrupted;
  RETURN_IF_ERROR(worker.status());
  return Runner((*worker)->client(), options, interrupt).Run(std::move(plan));
}

}  // namespace flowmesh::cli
