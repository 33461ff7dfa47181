#include "executors/server/executor_core.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "executors/launch/task_type_name.h"
#include "executors/server/failure_record.h"
#include "executors/server/progress_watch.h"

namespace flowmesh::executor {
namespace {

// Beyond the grace, for SIGKILL to take effect and the processes to be reaped.
constexpr absl::Duration kCancelMargin = absl::Seconds(10);

v1::TaskFailed Failure(v1::TaskFailed::Code code, std::string message) {
  v1::TaskFailed failed;
  failed.set_code(code);
  failed.set_message(std::move(message));
  return failed;
}

absl::StatusOr<Json> CheckRequest(const v1::ExecuteRequest& request) {
  if (request.task_id().empty()) {
    return absl::InvalidArgumentError("task_id: required, got nothing");
  }
  if (!std::filesystem::path(request.task_dir()).is_absolute()) {
    return absl::InvalidArgumentError(
        absl::StrCat("task_dir: expected an absolute path, got \"", request.task_dir(), "\""));
  }
  absl::StatusOr<Json> document = ParseJson(request.document_json());
  if (!document.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("document_json: ", document.status().message()));
  }
  if (!document->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("document_json: expected a map, got ", DescribeJson(*document)));
  }
  return document;
}

}  // namespace

ExecutorCore::ExecutorCore(ExecutorCoreOptions options, const TaskTypes& types,
                           TaskBackend& backend, const Clock& clock)
    : options_(std::move(options)), types_(types), backend_(backend), clock_(clock) {}

absl::StatusOr<std::shared_ptr<EventLog>> ExecutorCore::Execute(const v1::ExecuteRequest& request) {
  const Key key(request.task_id(), request.attempt());
  const auto known_or_refused =
      [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) -> absl::StatusOr<std::shared_ptr<EventLog>> {
    if (const auto known = logs_.find(key); known != logs_.end()) return known->second;
    if (stopping_) return absl::FailedPreconditionError("the executor is stopping");
    if (running_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("task ", running_->request.task_id(), " is running"));
    }
    return nullptr;  // it may run
  };
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<std::shared_ptr<EventLog>> answer = known_or_refused();
    if (!answer.ok() || *answer != nullptr) return answer;
  }
  // The document is parsed without the lock: it may be large.
  ASSIGN_OR_RETURN(Json document, CheckRequest(request));
  const absl::StatusOr<std::string> type = types_.Route(document);
  auto task = std::make_shared<Running>();
  task->document = std::move(document);
  task->type = type.ok() ? *type : "unknown";
  task->started = clock_.Monotonic();
  {
    absl::MutexLock lock(&mutex_);
    absl::StatusOr<std::shared_ptr<EventLog>> answer = known_or_refused();
    if (!answer.ok() || *answer != nullptr) return answer;
    task->request = request;
    task->log = std::make_shared<EventLog>(
        std::filesystem::path(request.task_dir()) / "logs" / "task.log", clock_);
    task->log->Started();
    logs_[key] = task->log;
    running_ = task;
    picked_up_ = !type.ok() || *type == "echo";
  }
  if (!type.ok()) {
    Finish(task, Failure(v1::TaskFailed::INVALID_SPEC, Message(type.status())));
  } else if (*type == "echo") {
    Finish(task, RunEcho(*task));
  }
  return task->log;
}

TaskEnd ExecutorCore::RunEcho(Running& task) {
  v1::TaskLogLine line;
  line.set_level("INFO");
  line.set_text(absl::StrCat("echo: the spec is returned as it came, in a document of ",
                             task.request.document_json().size(), " bytes"));
  task.log->LogLine(std::move(line));
  // Put together as text, so that a large spec is not copied once more.
  v1::TaskFinished finished;
  finished.set_result_json(
      absl::StrCat(R"({"ok":true,"echo":)", DumpJson(task.document["spec"]), "}"));
  return finished;
}

bool ExecutorCore::WorkOrStopLocked() const { return (running_ && !picked_up_) || stopping_; }

bool ExecutorCore::WaitForWorkOrStop(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return clock_.Await(mutex_, absl::Condition(this, &ExecutorCore::WorkOrStopLocked), timeout);
}

bool ExecutorCore::RunNext() {
  std::shared_ptr<Running> task;
  if (!WaitForWorkOrStop(options_.idle_release)) {
    backend_.Release();
    WaitForWorkOrStop(absl::InfiniteDuration());
  }
  {
    absl::MutexLock lock(&mutex_);
    if (!running_ || picked_up_) return false;
    task = running_;
    picked_up_ = true;
  }
  TaskEnd end;
  if (!task->cancel.requested()) {
    ProgressWatch watch(clock_, options_.progress_timeout, [&] { EndHung(*task); });
    const TaskSink sink{
        .progress =
            [&](v1::TaskProgress progress) {
              watch.Touch();
              task->log->Progress(std::move(progress));
            },
        .log_line =
            [&](v1::TaskLogLine line) {
              watch.Touch();
              task->log->LogLine(std::move(line));
            },
    };
    end = backend_.Run(task->request, task->document, task->cancel, sink);
  }
  Finish(task, std::move(end));
  return true;
}

void ExecutorCore::EndHung(Running& task) const {
  if (task.cancel.requested()) return;  // it is being ended
  task.hung = true;
  task.cancel.Request(options_.stop_grace,
                      absl::StrCat("the task hung: no progress within ",
                                   absl::FormatDuration(options_.progress_timeout),
                                   " (EXECUTOR_PROGRESS_TIMEOUT_SEC); it was ended"));
}

void ExecutorCore::Finish(const std::shared_ptr<Running>& task, TaskEnd end) {
  {
    // First free the place, then tell: whoever sees the end may send the next task at once. From
    // here on Cancel does not find the task, so a cancelled task always ends as one.
    absl::MutexLock lock(&mutex_);
    if (task->cancel.requested()) {
      end = Failure(task->hung ? v1::TaskFailed::HUNG : v1::TaskFailed::CANCELLED,
                    task->cancel.reason());
    }
    running_.reset();
    picked_up_ = false;
  }
  auto* failed = std::get_if<v1::TaskFailed>(&end);
  if (failed != nullptr && failed->result_json().empty() && IsTrainingType(task->type)) {
    failed->set_result_json(
        DumpJson(TrainingFailureRecord(task->request, task->document, task->type,
                                       clock_.Monotonic() - task->started, failed->message())));
  }
  task->log->End(std::move(end));
  {
    absl::MutexLock lock(&mutex_);
    RememberLocked({task->request.task_id(), task->request.attempt()}, task->log);
  }
  if (options_.on_end) {
    options_.on_end(task->type, task->log->outcome(), clock_.Monotonic() - task->started);
  }
}

void ExecutorCore::RememberLocked(const Key& key, std::shared_ptr<EventLog> log) {
  finished_.push_back(key);
  finished_bytes_ += log->bytes();
  while (finished_.size() > 1 && (finished_.size() > options_.finished_tasks ||
                                  finished_bytes_ > options_.finished_bytes)) {
    const auto oldest = logs_.find(finished_.front());
    finished_bytes_ -= oldest->second->bytes();
    logs_.erase(oldest);
    finished_.pop_front();
  }
}

absl::StatusOr<std::shared_ptr<EventLog>> ExecutorCore::Attach(const std::string& task_id,
                                                               const std::string& attempt) const {
  absl::MutexLock lock(&mutex_);
  const auto known = logs_.find({task_id, attempt});
  if (known != logs_.end()) return known->second;
  return absl::NotFoundError(absl::StrCat("task ", task_id, " is not known here"));
}

bool ExecutorCore::Cancel(const std::string& task_id, absl::Duration grace, std::string reason) {
  std::shared_ptr<Running> task;
  {
    absl::MutexLock lock(&mutex_);
    if (!running_ || running_->request.task_id() != task_id) return false;
    task = running_;
    task->cancel.Request(grace, reason.empty() ? "cancelled" : std::move(reason));
  }
  task->log->WaitComplete(grace + kCancelMargin);
  return true;
}

void ExecutorCore::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  if (running_) running_->cancel.Request(options_.stop_grace, "the executor is stopping");
}

std::string ExecutorCore::running_task_id() const {
  absl::MutexLock lock(&mutex_);
  return running_ ? running_->request.task_id() : std::string();
}

bool ExecutorCore::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

}  // namespace flowmesh::executor
