// What a worker's threads do: the lane, which runs tasks, and the deliveries, up to a task's end.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "sidecar/worker/orchestrator_record.h"
#include "sidecar/worker/worker.h"

namespace flowmesh::sidecar {
namespace {

// For how long an orchestrator that did not answer is not asked again.
constexpr absl::Duration kAskPause = absl::Seconds(60);

}  // namespace

// --- The lane ------------------------------------------------------------------------------------

bool Worker::LaneMayGoOnLocked() const {
  if (stopping_) return true;
  if (delay_is_new_) return true;
  if (!registered_ || draining_ || !RoomForDeliveryLocked()) return false;
  const TaskPtr due = DueLocked();
  return due && due->journalled && parts_.executor.available();
}

Worker::TaskPtr Worker::DueLocked() const {
  const absl::Duration now = parts_.clock.Monotonic();
  const auto due = std::find_if(queue_.begin(), queue_.end(),
                                [&](const TaskPtr& task) { return task->not_before <= now; });
  return due == queue_.end() ? nullptr : *due;
}

absl::Duration Worker::UntilDueLocked() const {
  const absl::Duration now = parts_.clock.Monotonic();
  absl::Duration left = absl::InfiniteDuration();
  for (const TaskPtr& task : queue_) {
    if (task->not_before > now) left = std::min(left, task->not_before - now);
  }
  return left;
}

bool Worker::RoomForDeliveryLocked() const {
  return deliveries_.size() < options_.max_waiting_deliveries &&
         undelivered_bytes_ < options_.max_undelivered_bytes;
}

void Worker::RunLane() {
  while (const TaskPtr task = AwaitTask()) RunTask(task);
}

Worker::TaskPtr Worker::AwaitTask() {
  absl::MutexLock lock(&mutex_);
  delay_is_new_ = false;
  while (!LaneMayGoOnLocked()) {
    // Time does not wake the lane by itself.
    parts_.clock.Await(mutex_, absl::Condition(this, &Worker::LaneMayGoOnLocked), UntilDueLocked());
    delay_is_new_ = false;
  }
  if (stopping_) return nullptr;
  const TaskPtr task = DueLocked();
  queue_.erase(std::find(queue_.begin(), queue_.end(), task));
  queued_bytes_ -= task->bytes;
  running_ = task;
  last_event_ = parts_.clock.Monotonic();
  return task;
}

void Worker::RunTask(const TaskPtr& task) {
  if (task->restored && !StillWanted(*task)) return;
  task->times.started_at = parts_.clock.Now();
  task->started = parts_.clock.Monotonic();
  task->SetTrace();
  parts_.metrics.ObserveStage("queued", task->started - task->received);
  // Lost when Redis is away: the orchestrator does without it.
  const redis::Command started = {
      "PUBLISH", kTaskEvents, TaskStartedEvent(id(), task->id(), task->times, parts_.clock.Now())};
  presence_.Write({started});
  LogInfo("task {} started on {} ({}), trace {}", task->id(), id(),
          task->times.task_type.value_or("no type"), task->traceparent);

  parts_.journal.Dispatch(task->entry);
  Ended ended = Execute(*task);
  parts_.metrics.ObserveStage("running", parts_.clock.Monotonic() - task->started);
  HandOver(task, std::move(ended));
}

// Whether a task of an earlier life is to run: the orchestrator still wants it from this worker, or
// does not say. When not, it is forgotten, or left as it is because the worker ends.
bool Worker::StillWanted(const Task& task) {
  if (parts_.clock.Monotonic() < ask_again_) return true;
  const absl::StatusOr<std::string> reason =
      WhyNotWanted(TasksUrl(*task.envelope.document, options_.orchestrator_base_url), task.id(),
                   id(), options_.orchestrator_base_url, options_.orchestrator_token, [this] {
                     absl::MutexLock lock(&mutex_);
                     return draining_ || stopping_;
                   });
  if (reason.ok() && reason->empty()) return true;
  if (reason.ok()) {
    LogInfo("task {} of an earlier life is dropped: {}", task.id(), *reason);
    parts_.metrics.CountTask(task.type(), "not_wanted");
    parts_.journal.Forget(task.entry);
    parts_.tasks.Forget(task.id());
  } else if (!absl::IsCancelled(reason.status())) {
    // Those after it need not wait for the same silence.
    if (absl::IsDeadlineExceeded(reason.status())) {
      ask_again_ = parts_.clock.Monotonic() + kAskPause;
    }
    LogWarning("task {}: the orchestrator does not say whether it is still wanted ({}): it runs",
               task.id(), Message(reason.status()));
    return true;
  }
  {
    absl::MutexLock lock(&mutex_);
    running_.reset();
  }
  presence_.Update();
  return false;
}

void Worker::HandOver(const TaskPtr& task, Ended ended) {
  const v1::TaskEvent event = ToEvent(ended.end);
  std::string end = event.SerializeAsString();
  const bool must_spool = event.has_finished() && ended.job.ok() && ended.job->sends();
  std::string task_dir = ended.job.ok() ? ended.job->task.dir.string() : "";
  const auto delivery = std::make_shared<Delivery>();
  *delivery = {
      .task = task,
      .outcome = OutcomeOf(std::move(ended), parts_.executor.name(), options_.orchestrator_token),
      .bytes = end.size(),
      .spooled = !must_spool};
  absl::MutexLock lock(&mutex_);
  EnqueueLocked(delivery);
  running_.reset();
  // What is given back has no end: it is somebody else's to compute.
  if (giving_up_ && event.has_failed()) return;
  Journal::Done spooled;
  if (must_spool) {
    spooled = [this, delivery](const absl::Status&) {
      absl::MutexLock lock(&mutex_);
      delivery->spooled = true;
    };
  }
  parts_.journal.Finish(task->entry, std::move(end), std::move(task_dir), std::move(spooled));
}

void Worker::EnqueueLocked(DeliveryPtr delivery) {
  undelivered_bytes_ += delivery->bytes;
  deliveries_.push_back(std::move(delivery));
}

Ended Worker::Execute(Task& task) {
  if (!task.envelope.problem.ok()) return {.end = FailedBefore(task.envelope.problem)};
  absl::StatusOr<DeliveryJob> job = Prepare(task);
  if (!job.ok()) return {.end = FailedBefore(job.status())};
  parts_.tasks.SetRunning(task.id(), job->task.dir.string(), task.times.started_at);
  if (std::optional<TaskEnd> end = ReadReusable(task, *job)) {
    return {.end = *std::move(end), .job = *std::move(job)};
  }

  v1::ExecuteRequest request;
  request.set_task_id(task.id());
  request.set_attempt(task.attempt);
  request.set_document_json(DumpJson(*task.envelope.document));
  request.set_task_dir(job->task.dir.string());
  for (const DeliveryUnit& child : job->children) {
    (*request.mutable_child_task_dirs())[child.task_id] = child.dir.string();
  }
  request.set_results_dir(options_.results_dir.string());
  request.set_orchestrator_base_url(options_.orchestrator_base_url);
  request.set_orchestrator_token(options_.orchestrator_token);
  const auto run = [&] {
    return parts_.executor.Run(request, task.traceparent,
                               [&](const v1::TaskEvent& event) { OnEvent(task, *job, event); });
  };
  TaskEnd end = run();
  if (task.restored && !task.cancelled && WasCancelled(end)) {
    // By the earlier life, on its way out: the executor remembers that end for that attempt.
    request.set_attempt(absl::StrCat(task.attempt, "'", attempt_prefix_));
    end = run();
  }
  return {.end = std::move(end), .job = *std::move(job)};
}

void Worker::OnEvent(const Task& task, const DeliveryJob& job, const v1::TaskEvent& event) {
  if (event.has_failed()) {
    v1::TaskEvent shown = event;
    BlankSecrets(job, options_.orchestrator_token, *shown.mutable_failed());
    parts_.tasks.AddEvent(task.id(), shown);
  } else {
    parts_.tasks.AddEvent(task.id(), event);
  }
  {
    const absl::Duration now = parts_.clock.Monotonic();
    absl::MutexLock lock(&mutex_);
    last_event_ = now;
  }
  // Whoever cancelled it before the executor had it found nothing to end there.
  if (event.has_started() && task.cancelled) EndOnExecutor(task.id(), task.cancel_reason);
}

// The result of an earlier run of the same document (PROTOCOL.md 4.4).
std::optional<TaskEnd> Worker::ReadReusable(const Task& task, const DeliveryJob& job) {
  if (!task.reuse) return std::nullopt;
  const absl::StatusOr<std::string> text = parts_.journal.ReadEnd(*task.reuse);
  v1::TaskEvent event;
  if (!text.ok() || !event.ParseFromString(*text) || !event.has_finished()) return std::nullopt;
  if (!OutputsAreKept(job, event.finished())) {
    LogWarning("task {} has been computed before, but its files are gone: it runs again",
               task.id());
    return std::nullopt;
  }
  LogInfo("task {} has been computed before: its result is delivered again", task.id());
  return std::move(*event.mutable_finished());
}

absl::StatusOr<DeliveryJob> Worker::Prepare(const Task& task) {
  ASSIGN_OR_RETURN(
      DeliveryJob job,
      PlanDelivery(task.id(), id(), task.times.dispatched_at.value_or(""), *task.envelope.document,
                   {.results_dir = options_.results_dir,
                    .orchestrator_base_url = options_.orchestrator_base_url}));
  RETURN_IF_ERROR(PrepareDirectories(job));
  job.SetTraceparent(task.traceparent);
  return job;
}

// --- Delivery ------------------------------------------------------------------------------------

bool Worker::DeliveryMayGoOnLocked() const {
  return stopping_ || (registered_ && std::any_of(deliveries_.begin(), deliveries_.end(),
                                                  [](const DeliveryPtr& d) { return d->spooled; }));
}

void Worker::RunDeliveries() {
  while (const DeliveryPtr delivery = AwaitDelivery()) DeliverTaken(*delivery);
}

void Worker::DeliverTaken(Delivery& delivery) {
  Deliver(delivery);
  {
    absl::MutexLock lock(&mutex_);
    delivering_.erase(delivery.task);
    undelivered_bytes_ -= delivery.bytes;
  }
  presence_.Update();
}

Worker::DeliveryPtr Worker::AwaitDelivery() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Worker::DeliveryMayGoOnLocked));
  if (stopping_) return nullptr;
  const auto ready = std::find_if(deliveries_.begin(), deliveries_.end(),
                                  [](const DeliveryPtr& d) { return d->spooled; });
  const DeliveryPtr delivery = *ready;
  deliveries_.erase(ready);
  delivering_.insert(delivery->task);
  return delivery;
}

void Worker::Deliver(Delivery& delivery) {
  const TaskPtr& task = delivery.task;
  Outcome& outcome = delivery.outcome;
  const absl::Duration begin = parts_.clock.Monotonic();
  parts_.tasks.SetDelivering(task->id());
  absl::Status status = outcome.status;
  {
    absl::MutexLock lock(&mutex_);
    // A result that is here when the worker ends may still make it.
    if (status.ok() && task->cancelled && !giving_up_) {
      status = absl::CancelledError(task->cancel_reason);
    }
  }
  if (status.ok()) {
    status = parts_.deliverer.Deliver(*outcome.job, [&] { return task->cancelled.load(); });
  } else if (outcome.job) {
    const absl::Status written =
        parts_.deliverer.WriteFailure(*outcome.job, outcome.failure_record);
    if (!written.ok()) LogWarning("task {}: {}", task->id(), Message(written));
  }
  parts_.metrics.ObserveStage("delivering", parts_.clock.Monotonic() - begin);
  bool given_back = false;
  {
    absl::MutexLock lock(&mutex_);
    given_back = giving_up_ && !status.ok();
    if (!given_back && task->cancelled && !status.ok()) {
      status = absl::CancelledError(task->cancel_reason);
    }
  }
  if (!given_back) return Conclude(task, status, outcome.details, outcome.keep);
  // Its entry stays until UNREGISTER was executed.
  parts_.metrics.CountTask(task->type(), "given_back");
  parts_.tasks.Forget(task->id());
}

// The end of a task: its record, its metrics and its terminal event.
void Worker::Conclude(const TaskPtr& task, const absl::Status& status, const Json& details,
                      JournalKeep keep) {
  std::string error = status.ok()               ? ""
                      : Message(status).empty() ? "unknown error"
                                                : Message(status);
  if (status.ok()) parts_.quarantine.Forget(task->id());
  if (keep == JournalKeep::kDeath) {
    parts_.quarantine.CountDeath(task->id(), task->fingerprint);
    const std::string held = parts_.quarantine.WhyHeld(task->id(), task->fingerprint);
    if (!held.empty()) absl::StrAppend(&error, "; ", held);
  }
  const absl::Time now = parts_.clock.Now();
  const absl::Duration monotonic = parts_.clock.Monotonic();
  parts_.metrics.CountTask(task->type(), status.ok() ? "succeeded" : "failed");
  {
    absl::MutexLock lock(&mutex_);
    ++untold_;
  }
  if (status.ok()) {
    LogInfo("task {} succeeded after {}, trace {}", task->id(),
            absl::FormatDuration(monotonic - task->started), task->traceparent);
  } else {
    parts_.metrics.CountFailure(CauseOf(status, details, keep));
    LogWarning("task {} failed: {}{}", task->id(), error,
               task->traceparent.empty() ? "" : ", trace " + task->traceparent);
  }
  // First the record: the event may bring the task's next attempt within a millisecond.
  if (keep == JournalKeep::kResult) {
    parts_.tasks.SetReusable(task->id(),
                             {.journal_entry = task->entry, .fingerprint = task->fingerprint});
  }
  parts_.tasks.SetFinished(task->id(), error, now);
  std::string event = TaskEndedEvent(id(), task->id(), task->times, error, details, now,
                                     monotonic - task->started, now);
  if (task->entry == 0) return Announce(task, std::move(event));
  parts_.journal.Conclude(task->entry, event, error, keep,
                          // When it is not on disk it is told all the same: silence would be worse.
                          [this, task, event](const absl::Status&) { Announce(task, event); });
}

void Worker::Announce(const TaskPtr& task, std::string event) {
  TerminalEvent terminal = {.worker_id = id(),
                            .task_id = task->id(),
                            .json = std::move(event),
                            .received = task->received,
                            .is_awaited = task->source == kFromRedis};
  terminal.on_tried = [this, task, begin = parts_.clock.Monotonic()] { OnAnnounced(task, begin); };
  if (task->entry != 0) {
    terminal.on_settled = [this, task] { parts_.journal.Announce(task->entry); };
  }
  parts_.announcer.Add(std::move(terminal));
}

void Worker::OnAnnounced(const TaskPtr& task, absl::Duration concluded) {
  const absl::Duration now = parts_.clock.Monotonic();
  parts_.metrics.ObserveStage("announcing", now - concluded);
  {
    absl::MutexLock lock(&mutex_);
    --untold_;
    last_task_ = task->id();
  }
  presence_.CheckLater();
}

}  // namespace flowmesh::sidecar
