#include "executors/launch/rank_host.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field.h"
#include "common/files.h"
#include "common/log.h"
#include "common/strings.h"
#include "executors/launch/warm_key.h"

namespace flowmesh::executor {
namespace {

// Lines of a dead rank in error texts and in the failure record.
constexpr size_t kReportedLines = 20;
constexpr size_t kShownLineBytes = 400;  // of the last one in the message
constexpr size_t kMaxMessageBytes = 8 << 10;
// For ranks that are idle, or about to be replaced.
constexpr absl::Duration kIdleGrace = absl::Seconds(2);

v1::TaskFailed Failure(v1::TaskFailed::Code code, std::string_view message) {
  v1::TaskFailed failed;
  failed.set_code(code);
  failed.set_message(std::string(CutUtf8(message, kMaxMessageBytes)));
  return failed;
}

uint64_t ResidentBytesOf(pid_t pid) {
  std::ifstream statm(absl::StrCat("/proc/", pid, "/statm"));
  uint64_t total_pages = 0, resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) return 0;
  return resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

void WriteErrorFile(const v1::ExecuteRequest& task, const RankDeath& death,
                    const v1::TaskFailed& failed, absl::Time now) {
  Json error = {{"task_id", task.task_id()},     {"time", FormatTimestamp(now)},
                {"message", failed.message()},   {"rank", death.rank},
                {"signal", death.status.signal}, {"exit_code", death.status.exit_code},
                {"last_lines", death.last_lines}};
  const std::filesystem::path path = std::filesystem::path(task.task_dir()) / "logs" / "error.json";
  const absl::Status status = WriteFileAtomically(path, DumpJson(error, 2) + "\n");
  if (!status.ok()) LogWarning("task {}: {}", task.task_id(), Message(status));
}

std::filesystem::path LogsDir(const v1::ExecuteRequest& task) {
  return std::filesystem::path(task.task_dir()) / "logs";
}

// Progress is that of the first rank here; log lines are everybody's, the others' with their names.
RankGroup::OnMessage PassOn(const TaskSink& sink, const NodeOptions& node, const RankPlan& plan) {
  const int first = plan.is_training ? node.rank * plan.ranks : 0;
  return [&sink, first](int rank, const v1::FromRank& message) {
    if (message.has_progress()) {
      if (rank == first) sink.progress(message.progress());
      return;
    }
    v1::TaskLogLine line = message.log_line();
    if (rank != first) line.set_text(absl::StrCat("[rank ", rank, "] ", line.text()));
    sink.log_line(std::move(line));
  };
}

}  // namespace

RankHost::RankHost(RankHostOptions options, const Clock& clock)
    : options_(std::move(options)),
      gpus_(options_.has_gpus ? SplitTrimmed(options_.visible_devices, ',')
                              : std::vector<std::string>()),
      clock_(clock),
      backoff_(options_.first_delay, options_.most_delay) {}

RankHost::~RankHost() { EndGroup(absl::ZeroDuration()); }

TaskEnd RankHost::Run(const v1::ExecuteRequest& task, const Json& document, CancelSignal& cancel,
                      const TaskSink& sink) {
  static const Json kNoSpec = Json::object();
  const auto found = document.find("spec");
  const Json& spec = found == document.end() ? kNoSpec : *found;
  const absl::StatusOr<RankPlan> plan = PlanRanks(document, gpus_);
  if (!plan.ok()) return Failure(v1::TaskFailed::INVALID_SPEC, Message(plan.status()));
  if (plan->is_training) return RunTraining(task, *plan, cancel, sink);
  return RunOnce(task, *plan, WarmKey(spec), /*restart=*/0, cancel, sink);
}

TaskEnd RankHost::RunTraining(const v1::ExecuteRequest& task, const RankPlan& plan,
                              CancelSignal& cancel, const TaskSink& sink) {
  const std::filesystem::path launcher = std::filesystem::path(task.task_dir()) / "_launcher";
  absl::Status written = MakeDirectories(launcher);
  if (written.ok())
    written = WriteFileAtomically(launcher / "task_spec.json", task.document_json());
  if (!written.ok()) return Failure(v1::TaskFailed::TASK_ERROR, Message(written));

  TaskEnd end;
  for (int restart = 0;; ++restart) {
    end = RunOnce(task, plan, /*key=*/"", restart, cancel, sink);
    EndGroup(kIdleGrace);
    if (restart == plan.max_restarts || cancel.requested() || !MayRestart(end)) break;
    const std::string text = absl::StrCat(
        "start ", restart + 1, " of at most ", plan.max_restarts,
        " anew, from the last checkpoint, after: ", std::get<v1::TaskFailed>(end).message());
    LogWarning("task {}: {}", task.task_id(), text);
    v1::TaskLogLine line;
    line.set_level("WARNING");
    line.set_text(text);
    sink.log_line(std::move(line));
  }
  if (const auto* finished = std::get_if<v1::TaskFinished>(&end)) {
    written = WriteFileAtomically(launcher / "result.json", finished->result_json());
    if (!written.ok()) return Failure(v1::TaskFailed::TASK_ERROR, Message(written));
  }
  return end;
}

bool RankHost::MayRestart(const TaskEnd& end) const {
  const auto* failed = std::get_if<v1::TaskFailed>(&end);
  if (failed == nullptr) return false;
  // A rank that died on another machine shows here as one that was lost.
  return failed->code() == v1::TaskFailed::RANK_DIED ||
         (failed->code() == v1::TaskFailed::PEER_LOST && options_.node.count > 1);
}

TaskEnd RankHost::RunOnce(const v1::ExecuteRequest& task, const RankPlan& plan,
                          const std::string& key, int restart, CancelSignal& cancel,
                          const TaskSink& sink) {
  if (std::optional<v1::TaskFailed> failed = Prepare(task, plan, key, restart, cancel)) {
    return *std::move(failed);
  }

  v1::RunTask run;
  *run.mutable_task() = task;
  cancel.SetCallback([group = group_.get()](absl::Duration grace) { group->Stop(grace); });
  RankGroup::Outcome outcome = group_->Run(run, LogsDir(task), PassOn(sink, options_.node, plan));
  cancel.SetCallback(nullptr);
  // A cancelled task leaves no process behind, even when it finished in the same moment.
  if (cancel.requested() || !group_->alive()) EndGroup(kIdleGrace);

  if (auto* finished = std::get_if<v1::TaskFinished>(&outcome)) return std::move(*finished);
  if (auto* failed = std::get_if<v1::TaskFailed>(&outcome)) return std::move(*failed);
  if (auto* death = std::get_if<RankDeath>(&outcome)) return ReportDeath(task, *death);
  return Failure(v1::TaskFailed::CANCELLED, cancel.reason());
}

RankGroupOptions RankHost::GroupOptionsFor(const v1::ExecuteRequest& task, const RankPlan& plan,
                                           int restart) const {
  RankGroupOptions options;
  options.command = options_.command;
  options.world_size = plan.ranks;
  options.use_cuda = plan.use_cuda;
  options.visible_devices = absl::StrJoin(plan.devices, ",");
  options.threads = options_.threads;
  options.env = options_.env;
  options.logs_dir = LogsDir(task);
  if (plan.is_training) {
    options.node = options_.node;
    // A fresh place to meet for each attempt: a rank of an earlier one, on another machine, cannot
    // join this one.
    if (options.node.master_port != 0) options.node.master_port += restart;
    options.run_id = task.task_id();
    options.restart_count = restart;
    options.max_restarts = plan.max_restarts;
  }
  return options;
}

std::optional<v1::TaskFailed> RankHost::Prepare(const v1::ExecuteRequest& task,
                                                const RankPlan& plan, const std::string& key,
                                                int restart, CancelSignal& cancel) {
  if (group_ && !group_->alive()) {
    LogWarning("a rank died while it was idle; a new one is started");
    ++rank_deaths_;
    EndGroup(absl::ZeroDuration());
  }
  if (group_ && key == key_) return std::nullopt;
  if (group_) LogInfo("task {} needs another model: the rank is replaced", task.task_id());
  EndGroup(kIdleGrace);

  const absl::Duration wait = backoff_.Wait(clock_.Monotonic());
  if (wait > absl::ZeroDuration()) {
    LogWarning("ranks have failed to start: next try in {}", absl::FormatDuration(wait));
  }
  if (cancel.WaitFor(clock_, wait)) return Failure(v1::TaskFailed::CANCELLED, cancel.reason());

  rank_starts_ += static_cast<uint64_t>(plan.ranks);
  absl::StatusOr<std::unique_ptr<RankGroup>> group =
      RankGroup::Start(GroupOptionsFor(task, plan, restart));
  if (!group.ok()) {
    backoff_.Failed(clock_.Monotonic());
    return Failure(v1::TaskFailed::INTERNAL, Message(group.status()));
  }
  {
    absl::MutexLock lock(&mutex_);
    group_ = *std::move(group);
  }
  cancel.SetCallback([raw = group_.get()](absl::Duration grace) { raw->Stop(grace); });
  const auto over = group_->WaitReady(options_.ready_timeout);
  cancel.SetCallback(nullptr);
  if (!over) {
    backoff_.Succeeded();
    key_ = key;
    LogInfo("rank ready: pid {}, device {}, libtorch {}, {} ranks here", group_->pids()[0],
            group_->ready().device(), group_->ready().torch_version(), plan.ranks);
    return std::nullopt;
  }
  EndGroup(absl::ZeroDuration());
  if (const auto* death = std::get_if<RankDeath>(&*over)) {
    backoff_.Failed(clock_.Monotonic());
    return ReportDeath(task, *death);
  }
  return Failure(v1::TaskFailed::CANCELLED, cancel.reason());
}

v1::TaskFailed RankHost::ReportDeath(const v1::ExecuteRequest& task, const RankDeath& death) {
  ++rank_deaths_;
  std::vector<std::string> lines = death.last_lines;
  if (lines.size() > kReportedLines) lines.erase(lines.begin(), lines.end() - kReportedLines);
  std::string message = death.ToString();
  if (!lines.empty()) {
    absl::StrAppend(&message, "; its last line: ", ToAbsl(CutUtf8(lines.back(), kShownLineBytes)));
  }
  LogWarning("task {}: {}", task.task_id(), message);

  v1::TaskFailed failed = Failure(v1::TaskFailed::RANK_DIED, message);
  v1::RankFailure& record = *failed.mutable_rank_failure();
  record.set_rank(death.rank);
  record.set_signal(death.status.signal);
  record.set_exit_code(death.status.exit_code);
  for (const std::string& line : lines) record.add_last_lines(line);
  WriteErrorFile(task, death, failed, clock_.Now());
  return failed;
}

void RankHost::EndGroup(absl::Duration grace) {
  if (!group_) return;
  group_->Stop(grace);
  group_->WaitGone(grace + absl::Seconds(10));
  std::unique_ptr<RankGroup> ended;
  absl::MutexLock lock(&mutex_);
  ended = std::move(group_);
  key_.clear();
}

void RankHost::Release() { EndGroup(kIdleGrace); }

uint64_t RankHost::ResidentBytes() const {
  absl::MutexLock lock(&mutex_);
  uint64_t total = 0;
  if (group_) {
    for (const pid_t pid : group_->pids()) total += ResidentBytesOf(pid);
  }
  return total;
}

size_t RankHost::ranks() const {
  absl::MutexLock lock(&mutex_);
  return group_ && group_->alive() ? group_->pids().size() : 0;
}

absl::StatusOr<RankDescription> DescribeRank(const std::filesystem::path& program, bool use_cuda,
                                             const std::string& visible_devices,
                                             absl::Duration timeout) {
  if (::access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("no rank program at ", program.string()));
  }
  const TempDir folder;
  const std::filesystem::path answer = folder / "answer", problems = folder / "problems";
  const auto create = [](const std::filesystem::path& path) {
    return UniqueFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  };
  const UniqueFd answer_fd = create(answer), problems_fd = create(problems);
  if (!answer_fd.valid() || !problems_fd.valid()) return ErrnoError("cannot write", folder.path());

  SubprocessOptions options;
  options.argv = {program.string(), "--describe"};
  options.env = {{kRankDeviceVariable, use_cuda ? "cuda" : "cpu"},
                 {"CUDA_VISIBLE_DEVICES", use_cuda ? visible_devices : ""}};
  options.stdout_fd = answer_fd.get();
  options.stderr_fd = problems_fd.get();
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(options));
  const std::optional<ExitStatus> status = process.Wait(timeout);
  if (!status || !status->ok()) {
    OutputLog lines({.lines = 1});
    lines.Append(ReadFile(problems).value_or(""));
    const std::vector<std::string> last = lines.LastLines();
    return absl::UnavailableError(
        absl::StrCat("the rank program does not start: ", !last.empty() ? last.back()
                                                          : status      ? status->ToString()
                                                                        : "no answer in time"));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(answer));
  const absl::StatusOr<Json> json = ParseJson(text);
  if (!json.ok() || !json->is_object()) {
    return absl::UnavailableError("the rank program does not describe itself as expected");
  }
  const Field root(&*json, "");
  RankDescription description;
  ASSIGN_OR_RETURN(description.torch_version, root["torch_version"].StringOr(""));
  ASSIGN_OR_RETURN(description.task_types, root["task_types"].StringList());
  ASSIGN_OR_RETURN(description.cuda, root["cuda"].BoolOr(false));
  ASSIGN_OR_RETURN(description.cuda_problem, root["cuda_problem"].StringOr(""));
  return description;
}

}  // namespace flowmesh::executor
