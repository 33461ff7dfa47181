// The orchestrator's half that listens: events, retries, and workers that leave or die.
#include "absl/strings/str_cat.h"
#include "clients/orchestrator/orchestrator.h"
#include "common/log.h"

namespace flowmesh::orchestrator {

void Orchestrator::OnMessage(std::string_view message) {
  const std::optional<Event> event = ParseEvent(message);
  if (!event) {
    absl::MutexLock lock(&mutex_);
    ++malformed_events_;
    LogDebug("dropped a malformed event of {} bytes", message.size());
    return;
  }
  if (event->is_task) {
    OnTaskEvent(*event);
  } else {
    OnWorkerEvent(*event);
  }
}

void Orchestrator::OnWorkerEvent(const Event& event) {
  if (event.type == "UNREGISTER") {
    WorkerLeft(event.worker_id);
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (event.type == "REGISTER") ++registered_;
  if (event.type == "HEARTBEAT") ++heartbeats_;
  if (event.is_short) return;  // our own, or another orchestrator's
  watchdog_.SawAlive(event.worker_id);
  work_ = true;
}

void Orchestrator::OnTaskEvent(const Event& event) {
  if (event.type == "TASK_STARTED") {
    absl::MutexLock lock(&mutex_);
    table_.Started(event.task_id, event.worker_id, clock_.Now());
  } else if (event.type == "TASK_SUCCEEDED") {
    TaskSucceeded(event);
  } else if (event.type == "TASK_FAILED") {
    TaskFailed(event);
  }
}

void Orchestrator::TaskSucceeded(const Event& event) {
  std::vector<std::string> children;
  {
    absl::MutexLock lock(&mutex_);
    if (table_.Find(event.task_id) == nullptr) return;  // another orchestrator's
    children = table_.Succeeded(event.task_id, clock_.Now());
  }
  SettleChildren(event.task_id, children);
  if (const absl::Status status = workers_.SetStatus(event.worker_id, "IDLE"); !status.ok()) {
    LogWarning("worker {} not marked IDLE: {}", event.worker_id, Message(status));
  }
  Wake();
}

void Orchestrator::SettleChildren(const std::string& parent,
                                  const std::vector<std::string>& children) {
  // Results that go elsewhere than here are nobody's to judge.
  const bool delivered_here = store_.HasResult(parent);
  for (const std::string& child : children) {
    const bool missing = delivered_here && !store_.HasResult(child);
    absl::MutexLock lock(&mutex_);
    if (missing) {
      table_.Fail(
          child, absl::StrCat("task ", parent, " succeeded without a result for this merged child"),
          clock_.Now());
    } else {
      table_.Succeeded(child, clock_.Now());
    }
  }
}

void Orchestrator::TaskFailed(const Event& event) {
  absl::MutexLock lock(&mutex_);
  const TaskRecord* record = table_.Find(event.task_id);
  if (record == nullptr) return;
  if (!table_.IsRunningOn(*record, event.worker_id)) {
    LogWarning("worker {} reports the failure of task {}, which it does not hold", event.worker_id,
               event.task_id);
    return;
  }
  LogWarning("task {} failed on worker {} (attempt {} of {}): {}", event.task_id, event.worker_id,
             record->attempts + 1, kMaxAttempts, event.error);
  table_.AttemptFailed(event.task_id, event.worker_id, event.error, clock_.Now());
  work_ = true;
}

void Orchestrator::WorkerLeft(const std::string& id) {
  workers_.ForgetElastic(id);
  absl::MutexLock lock(&mutex_);
  ++unregistered_;
  // The watchdog has already requeued what a dead worker held.
  if (watchdog_.IsDead(id)) return;
  const std::vector<std::string> tasks = table_.DispatchedTo(id);
  // Each goes to the front, so the last is put there first.
  for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) {
    LogInfo("task {} taken back: worker {} left", *task, id);
    table_.AttemptFailed(*task, id, "the worker left", clock_.Now());
  }
  work_ = true;
}

void Orchestrator::CheckWorkers() {
  const absl::StatusOr<std::vector<WorkerEntry>> listed = workers_.List();
  if (!listed.ok()) return;
  std::map<std::string, bool> stale;
  for (const WorkerEntry& worker : *listed) stale[worker.id] = worker.stale;
  std::vector<std::string> holders;  // may be listed no longer
  {
    absl::MutexLock lock(&mutex_);
    for (const TaskRecord* record : table_.All()) {
      if (record->status == TaskStatus::kDispatched && !stale.contains(record->assigned_worker)) {
        holders.push_back(record->assigned_worker);
      }
    }
  }
  for (const std::string& id : holders) {
    if (stale.contains(id)) continue;
    const absl::StatusOr<bool> is_stale = workers_.IsStale(id);
    if (!is_stale.ok()) return;
    stale[id] = *is_stale;
  }
  std::vector<std::string> died;
  {
    absl::MutexLock lock(&mutex_);
    died = watchdog_.Check(stale, clock_.Monotonic());
  }
  for (const std::string& worker : died) DeclareDead(worker);
}

void Orchestrator::DeclareDead(const std::string& worker) {
  std::vector<TaskRecord> tasks;
  {
    absl::MutexLock lock(&mutex_);
    for (const std::string& id : table_.DispatchedTo(worker)) tasks.push_back(*table_.Find(id));
  }
  LogWarning("worker {} is dead: no heartbeat; it held {} tasks", worker, tasks.size());
  for (auto task = tasks.rbegin(); task != tasks.rend(); ++task) {
    const Json event = {{"type", "TASK_FAILED"},
                        {"ts", FormatTimestamp(clock_.Now())},
                        {"worker_id", worker},
                        {"task_id", task->task_id},
                        {"status", nullptr},
                        {"error", "worker_heartbeat_expired"},
                        {"payload",
                         {{"reason", "worker_heartbeat_expired"},
                          {"worker", worker},
                          {"synthetic", true},
                          {"attempt", task->attempts + 1}}}};
    // It comes back through our own subscription and takes the ordinary way of a failure.
    const absl::StatusOr<redis::Reply> receivers =
        redis_.Ask({"PUBLISH", "tasks.events", DumpJson(event)});
    if (receivers.ok() && receivers->integer > 0) continue;
    absl::MutexLock lock(&mutex_);
    table_.AttemptFailed(task->task_id, worker, "worker_heartbeat_expired", clock_.Now());
    work_ = true;
  }
}

}  // namespace flowmesh::orchestrator
