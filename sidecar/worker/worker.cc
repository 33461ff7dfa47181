#include "sidecar/worker/worker.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/trace.h"

namespace flowmesh::sidecar {
namespace {

using google::protobuf::util::TimeUtil;

constexpr char kStopping[] = "the worker is stopping";

v1::TaskRecord NewRecord(const Envelope& envelope, const std::string& source, absl::Time now) {
  v1::TaskRecord record;
  record.set_task_id(envelope.task_id);
  record.set_worker_id(envelope.worker_id);
  record.set_task_type(envelope.task_type.value_or(""));
  record.set_source(source);
  *record.mutable_received_at() = TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(now));
  return record;
}

}  // namespace

std::string Worker::Task::type() const { return ToLower(Trim(envelope.task_type.value_or(""))); }

void Worker::Task::SetTrace() {
  traceparent = TraceOfRun(*envelope.document, absl::StrCat(id(), " ", attempt)).ToString();
}

Worker::Worker(WorkerOptions options, Registration registration, WorkerParts parts)
    : options_(std::move(options)),
      parts_(parts),
      attempt_prefix_(registration.instance_id.substr(0, 8)),
      presence_(std::move(registration), options_.heartbeat_interval, options_.process_start,
                {.clock = parts_.clock, .publisher = parts_.publisher, .metrics = parts_.metrics},
                [this] { return Now(); }),
      lane_([this] { RunLane(); }) {
  for (size_t i = 0; i < options_.delivery_threads; ++i) {
    delivery_.emplace_back([this] { RunDeliveries(); });
  }
}

Worker::~Worker() { Stop(); }

// --- Intake --------------------------------------------------------------------------------------

Worker::Acceptance Worker::Accept(Envelope envelope, const std::string& source, uint64_t bytes) {
  auto task = std::make_shared<Task>();
  task->received = parts_.clock.Monotonic();
  task->source = source;
  task->bytes = bytes;
  task->times.task_type = envelope.task_type;
  task->times.dispatched_at = envelope.dispatched_at;
  task->times.started_at = parts_.clock.Now();
  task->started = task->received;
  task->envelope = std::move(envelope);
  JournalTask record{.task_id = task->id(),
                     .worker_id = id(),
                     .dispatched_at = task->times.dispatched_at.value_or(""),
                     .source = source,
                     .document = DumpJson(*task->envelope.document),
                     .received_at = task->times.started_at};
  record.fingerprint = task->fingerprint = Sha256Hex(record.document);
  absl::Status refused;
  const std::string held = parts_.quarantine.WhyHeld(task->id(), task->fingerprint);
  task->not_before = task->received + parts_.quarantine.Delay(task->id(), task->fingerprint);
  {
    absl::MutexLock lock(&mutex_);
    if (draining_) return Acceptance::kDraining;
    task->reuse = parts_.tasks.FindReusable(task->id(), task->fingerprint);
    if (parts_.tasks.Enter(NewRecord(task->envelope, source, task->times.started_at),
                           record.dispatched_at) == TaskTable::Arrival::kDuplicate) {
      return Acceptance::kDuplicate;
    }
    record.attempt = task->attempt =
        absl::StrCat(record.dispatched_at, "#", attempt_prefix_, "-", ++attempts_);
    if (!held.empty()) {
      refused = absl::FailedPreconditionError(held);
    } else if (queue_.size() >= options_.max_queued_tasks ||
               (!queue_.empty() && queued_bytes_ + bytes > options_.max_queued_bytes)) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("the queue of worker ", id(), " is full (", options_.max_queued_tasks,
                       " tasks, ", options_.max_queued_bytes, " bytes)"));
    } else if (parts_.journal.stats().open_bytes + record.document.size() >
               options_.max_spool_bytes) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("the spool is full (", options_.max_spool_bytes,
                       " bytes in the journal): results wait for the orchestrator"));
    } else {
      queued_bytes_ += bytes;
      queue_.push_back(task);
      delay_is_new_ |= task->not_before > task->received;
      task->entry = parts_.journal.Accept(
          std::move(record),
          [this, task](const absl::Status& status, const std::optional<JournalClosed>& earlier) {
            OnJournalled(task, status, earlier);
          });
    }
  }
  if (refused.ok()) return Acceptance::kQueued;
  if (!held.empty()) {
    FailQueued(task, refused, {{"failure", "QUARANTINED"}});
    return Acceptance::kQuarantined;
  }
  FailQueued(task, refused);
  return Acceptance::kFull;
}

// The table of tasks holds the latest; the journal also knows those whose results are kept.
void Worker::OnJournalled(const TaskPtr& task, const absl::Status& status,
                          const std::optional<JournalClosed>& earlier) {
  {
    absl::MutexLock lock(&mutex_);
    if (status.ok()) {
      const bool has_result = earlier && earlier->keep == JournalKeep::kResult;
      if (has_result && earlier->task.fingerprint == task->fingerprint) task->reuse = earlier->id;
      task->journalled = true;
      return;
    }
    const auto waiting = std::find(queue_.begin(), queue_.end(), task);
    if (waiting == queue_.end()) return;  // cancelled meanwhile
    queued_bytes_ -= task->bytes;
    queue_.erase(waiting);
    task->entry = 0;
  }
  if (!absl::IsAlreadyExists(status)) return FailQueued(task, status);
  LogInfo("task {} came again and is ignored: the journal knows it", task->id());
  parts_.metrics.CountMessage("duplicate");
  parts_.tasks.Forget(task->id());
  RestoreClosed(*earlier, parts_.tasks);
  presence_.Update();
}

void Worker::Restore(JournalEntry entry) {
  auto task = std::make_shared<Task>();
  const absl::Time now = parts_.clock.Now();
  task->received = task->started = parts_.clock.Monotonic();
  task->source = entry.task.source;
  task->bytes = entry.task.document.size();
  task->attempt = std::move(entry.task.attempt);
  task->fingerprint = std::move(entry.task.fingerprint);
  task->entry = entry.id;
  task->journalled = task->restored = true;
  absl::StatusOr<Json> document = ParseJson(entry.task.document);
  task->envelope = MakeLocalEnvelope(document.ok() ? *std::move(document) : Json(),
                                     entry.task.task_id, id(), entry.task.dispatched_at);
  if (entry.task.dispatched_at.empty()) task->envelope.dispatched_at.reset();
  task->SetTrace();
  task->times.task_type = task->envelope.task_type;
  task->times.dispatched_at = task->envelope.dispatched_at;
  // When it began is not known; it was received before that.
  task->times.started_at = std::min(entry.task.received_at, now);
  v1::TaskRecord record = NewRecord(task->envelope, entry.task.source, entry.task.received_at);
  record.set_task_dir(std::move(entry.task_dir));
  parts_.tasks.Enter(record, entry.task.dispatched_at);
  LogInfo("task {} was left behind: {}", task->id(),
          entry.state == JournalState::kDelivered  ? "its end is told"
          : entry.state == JournalState::kFinished ? "its result is delivered"
                                                   : "it runs again");
  if (entry.state == JournalState::kDelivered) {
    if (entry.keep == JournalKeep::kDeath) {
      parts_.quarantine.CountDeath(task->id(), task->fingerprint);
    } else if (entry.keep == JournalKeep::kResult) {
      parts_.tasks.SetReusable(task->id(),
                               {.journal_entry = entry.id, .fingerprint = task->fingerprint});
    }
    parts_.tasks.SetFinished(task->id(), entry.error, now);
    absl::MutexLock lock(&mutex_);
    ++untold_;
    restored_events_.emplace_back(task, std::move(entry.event));
    return;
  }
  v1::TaskEvent end;
  absl::StatusOr<DeliveryJob> job;
  bool is_finished = entry.state == JournalState::kFinished && end.ParseFromString(entry.end);
  if (is_finished) job = Prepare(*task);
  if (is_finished && end.has_finished() && job.ok() && !OutputsAreKept(*job, end.finished())) {
    LogWarning("task {}: its files are gone: it runs again", task->id());
    absl::StrAppend(&task->attempt, "'", attempt_prefix_);  // the executor may know the other's end
    is_finished = false;
  }
  if (is_finished) {
    Ended ended = {.end = FromEvent(std::move(end)), .job = std::move(job)};
    const auto delivery = std::make_shared<Delivery>();
    *delivery = {
        .task = task,
        .outcome = OutcomeOf(std::move(ended), parts_.executor.name(), options_.orchestrator_token),
        .bytes = entry.end.size(),
        .spooled = true};
    absl::MutexLock lock(&mutex_);
    EnqueueLocked(delivery);
    return;
  }
  task->not_before = task->received + parts_.quarantine.Delay(task->id(), task->fingerprint);
  absl::MutexLock lock(&mutex_);
  queued_bytes_ += task->bytes;
  queue_.push_back(task);
  delay_is_new_ = true;
}

bool Worker::Cancel(const std::string& task_id, const std::string& reason) {
  TaskPtr queued, active;
  DeliveryPtr undelivered;
  bool executes = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto waiting = std::find_if(queue_.begin(), queue_.end(),
                                      [&](const TaskPtr& task) { return task->id() == task_id; });
    if (waiting != queue_.end()) {
      queued = *waiting;
      queued_bytes_ -= queued->bytes;
      queue_.erase(waiting);
    } else if (running_ && running_->id() == task_id) {
      active = running_;
      active->Cancel(reason);
    } else {
      const auto finished =
          std::find_if(deliveries_.begin(), deliveries_.end(),
                       [&](const DeliveryPtr& d) { return d->task->id() == task_id; });
      if (finished != deliveries_.end()) {
        undelivered = *finished;
        undelivered->task->Cancel(reason);
        deliveries_.erase(finished);
        delivering_.insert(undelivered->task);
      }
      for (const TaskPtr& task : delivering_) {
        if (task->id() != task_id) continue;
        // Whoever delivers it looks at that.
        task->Cancel(reason);
        active = task;
      }
    }
    executes = active && active == running_;
  }
  if (queued) FailQueued(queued, absl::CancelledError(reason));
  // Those who deliver may all be busy for long.
  if (undelivered) DeliverTaken(*undelivered);
  if (executes) EndOnExecutor(task_id, reason);
  return queued || active;
}

void Worker::EndOnExecutor(const std::string& task_id, const std::string& reason) {
  const absl::Duration begin = parts_.clock.Monotonic();
  const absl::StatusOr<bool> ended = parts_.executor.Cancel(task_id, options_.cancel_grace, reason);
  parts_.metrics.ObserveCancel(ended.ok(), parts_.clock.Monotonic() - begin);
  if (!ended.ok()) LogWarning("task {}: cannot be cancelled: {}", task_id, Message(ended.status()));
}

void Worker::FailQueued(const TaskPtr& task, const absl::Status& status, const Json& details) {
  LogWarning("task {}: {}", task->id(), Message(status));
  Conclude(task, status, details, JournalKeep::kNothing);
}

// --- What others see -----------------------------------------------------------------------------

WorkNow Worker::Now() const {
  absl::MutexLock lock(&mutex_);
  return {.can_work = parts_.executor.available(),
          .has_work = DueLocked() != nullptr || running_ != nullptr || !deliveries_.empty() ||
                      !delivering_.empty() || untold_ > 0,
          .is_untold = untold_ > 0,
          .running_task = running_ ? running_->id() : "",
          .last_task = last_task_,
          .queue_depth = queue_.size()};
}

void Worker::Register() {
  presence_.Register();
  std::vector<std::pair<TaskPtr, std::string>> untold;
  {
    absl::MutexLock lock(&mutex_);
    registered_ = true;
    untold.swap(restored_events_);
  }
  for (auto& [task, event] : untold) Announce(task, std::move(event));
}

void Worker::OnForeignStatus(const std::string& status) {
  if (status == ToText(WorkerStatus::kRunning)) parts_.announcer.ForeignRunningSeen(id());
  presence_.OnForeignStatus(status);
}

std::string Worker::running_task_id() const {
  absl::MutexLock lock(&mutex_);
  return running_ ? running_->id() : "";
}

std::optional<Worker::Activity> Worker::activity() const {
  absl::MutexLock lock(&mutex_);
  if (!running_) return std::nullopt;
  return Activity{.task_id = running_->id(), .silent = parts_.clock.Monotonic() - last_event_};
}

size_t Worker::queue_depth() const {
  absl::MutexLock lock(&mutex_);
  return queue_.size();
}

// --- Shutdown ------------------------------------------------------------------------------------

void Worker::StartDrain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  presence_.SetDraining();
}

bool Worker::DrainedLocked() const {
  if (running_ != nullptr || !delivering_.empty()) return false;
  // Before the registration nothing is delivered or told: it is left to the next life.
  return !registered_ || (deliveries_.empty() && untold_ == 0);
}

bool Worker::WaitDrained(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return parts_.clock.Await(mutex_, absl::Condition(this, &Worker::DrainedLocked), timeout);
}

void Worker::GiveUp() {
  TaskPtr running;
  {
    absl::MutexLock lock(&mutex_);
    giving_up_ = draining_ = true;  // also when it is superseded: nothing starts any more
    running = running_;
    if (running) running->Cancel(kStopping);  // should it end well after all, nobody is to get it
    for (const TaskPtr& task : delivering_) task->Cancel(kStopping);
    for (const DeliveryPtr& delivery : deliveries_) delivery->task->Cancel(kStopping);
  }
  if (!running) return;
  LogWarning("task {} is given back: it did not end in time", running->id());
  EndOnExecutor(running->id(), kStopping);
}

void Worker::Unregister(absl::Duration uptime, const Json& power_summary,
                        std::function<void(const absl::Status&)> done) {
  bool was_registered = false;
  {
    absl::MutexLock lock(&mutex_);
    was_registered = std::exchange(registered_, false);
  }
  if (!was_registered) return done(absl::OkStatus());
  presence_.Unregister(uptime, power_summary,
                       [this, done = std::move(done)](const absl::Status& status) {
                         // What was given back is the orchestrator's again. Without an answer the
                         // next life asks.
                         if (status.ok()) parts_.journal.ForgetWorker(id());
                         done(status);
                       });
}

void Worker::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  presence_.Stop();
  if (lane_.joinable()) lane_.join();
  for (std::thread& thread : delivery_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace flowmesh::sidecar
