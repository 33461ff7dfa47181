// One FlowMesh worker: the tasks of one executor, from the envelope to the terminal event.
//
//   Accept → journal → queue → [lane: run on the executor] → [delivery: files, HTTP] → announcer
//
// What each step has done is in the journal before the next one starts
// (sidecar/journal/journal.md), so that another life of the sidecar goes on from there.
//
// The lane is one thread and keeps the order of arrival. A few threads deliver, so that the
// executor computes the next task while results are on their way, and one that meets a slow
// receiver holds no other up: tasks may end in another order than they ran.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "sidecar/delivery/deliverer.h"
#include "sidecar/dispatch/executor_link.h"
#include "sidecar/intake/envelope.h"
#include "sidecar/journal/journal.h"
#include "sidecar/metrics/metrics.h"
#include "sidecar/worker/announcer.h"
#include "sidecar/worker/presence.h"
#include "sidecar/worker/publisher.h"
#include "sidecar/worker/quarantine.h"
#include "sidecar/worker/run_end.h"
#include "sidecar/worker/task_table.h"
#include "sidecar/worker/wire.h"

namespace flowmesh::sidecar {

struct WorkerOptions {
  std::string worker_id;
  std::filesystem::path results_dir;
  std::string orchestrator_base_url;
  std::string orchestrator_token;  // secret
  absl::Duration heartbeat_interval = absl::Seconds(30);
  absl::Duration process_start;  // monotonic
  size_t max_queued_tasks = 10000;
  uint64_t max_queued_bytes = 64u << 20;         // of their documents; one task always fits
  uint64_t max_spool_bytes = uint64_t{4} << 30;  // of accepted documents and results not yet told
  size_t delivery_threads = 4;
  // Beyond either the lane starts nothing new. The bytes are those of results, delivered ones not.
  size_t max_waiting_deliveries = 16;
  uint64_t max_undelivered_bytes = 64u << 20;
  absl::Duration cancel_grace = absl::Seconds(5);
};

// What a worker uses and does not own; all of it outlives the worker.
struct WorkerParts {
  const Clock& clock;
  Publisher& publisher;
  ExecutorLink& executor;
  Deliverer& deliverer;
  TaskTable& tasks;
  Quarantine& quarantine;
  Journal& journal;
  Announcer& announcer;
  SidecarMetrics& metrics;
};

// Thread-safe.
class Worker {
 public:
  Worker(WorkerOptions options, Registration registration, WorkerParts parts);
  ~Worker();

  const std::string& id() const { return options_.worker_id; }
  const ExecutorLink& executor() const { return parts_.executor; }

  // Takes a task, from Redis or from the local API (kFromRedis, kFromLocal); waits for no disk.
  // kFull and kQuarantined: it was answered with TASK_FAILED. kDraining: nothing was said; the
  // orchestrator hands it out again. kQueued: it is dropped after all should the journal know it.
  enum class Acceptance { kQueued, kDuplicate, kFull, kQuarantined, kDraining };
  Acceptance Accept(Envelope envelope, const std::string& source, uint64_t bytes);

  // Takes up a task that an earlier life of the sidecar left behind; before Register.
  void Restore(JournalEntry entry);

  // Takes a queued task out of the queue or ends a running one; it fails as cancelled. False when
  // the worker has no such task that could still be ended.
  bool Cancel(const std::string& task_id, const std::string& reason);

  // --- What others see --------------------------------------------------------------------------

  Presence& presence() { return presence_; }
  const Presence& presence() const { return presence_; }

  // Registers it, with what an earlier life could not tell; from here on tasks run.
  void Register();
  // Somebody else wrote this status of it.
  void OnForeignStatus(const std::string& status);

  std::string running_task_id() const;
  // The task that runs, and for how long its executor has said nothing of it.
  struct Activity {
    std::string task_id;
    absl::Duration silent;
  };
  std::optional<Activity> activity() const;
  size_t queue_depth() const;
  uint64_t max_spool_bytes() const { return options_.max_spool_bytes; }

  // --- Shutdown ---------------------------------------------------------------------------------

  // Status STOPPING; starts nothing new.
  void StartDrain();
  // Waits until nothing runs and all that ran is delivered and told, at most `timeout`.
  bool WaitDrained(absl::Duration timeout) const;
  // Ends what still runs. Nothing is published for it: UNREGISTER gives it back.
  void GiveUp();
  void Unregister(absl::Duration uptime, const Json& power_summary,
                  std::function<void(const absl::Status&)> done);
  // Ends the threads. Tasks still in the queue stay untold.
  void Stop();

 private:
  // A task on its way through this worker.
  struct Task {
    Envelope envelope;
    std::string source;  // kFromRedis, kFromLocal
    uint64_t bytes = 0;
    absl::Duration received;    // monotonic
    absl::Duration not_before;  // monotonic; later than `received` when an earlier run was a death
    TaskTimes times;
    absl::Duration started;  // monotonic
    std::string attempt;
    std::string fingerprint;
    std::string traceparent;       // empty until it runs
    int64_t entry = 0;             // in the journal; 0: it was refused before it came there
    bool journalled = false;       // it may run; guarded by the worker's mutex
    bool restored = false;         // from an earlier life
    std::optional<int64_t> reuse;  // entry of an earlier run whose result is delivered again
    std::atomic<bool> cancelled{false};
    std::string cancel_reason;  // of the first who did; fixed once `cancelled`

    const std::string& id() const { return envelope.task_id; }
    std::string type() const;  // in lower case
    void SetTrace();           // of this attempt
    // With the worker's mutex held.
    void Cancel(const std::string& reason) {
      if (cancelled) return;
      cancel_reason = reason;
      cancelled = true;
    }
  };
  using TaskPtr = std::shared_ptr<Task>;

  struct Delivery {
    TaskPtr task;
    Outcome outcome;
    uint64_t bytes = 0;    // of its end
    bool spooled = false;  // it may be sent; guarded by the worker's mutex
  };
  using DeliveryPtr = std::shared_ptr<Delivery>;

  void RunLane();
  // Waits for a task that may run, and takes it out of the queue; null when stopping.
  TaskPtr AwaitTask();
  void RunDeliveries();
  // The same of results: null when stopping.
  DeliveryPtr AwaitDelivery();
  void EnqueueLocked(DeliveryPtr delivery) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnJournalled(const TaskPtr& task, const absl::Status& status,
                    const std::optional<JournalClosed>& earlier);
  void RunTask(const TaskPtr& task);
  Ended Execute(Task& task);
  bool StillWanted(const Task& task);
  std::optional<TaskEnd> ReadReusable(const Task& task, const DeliveryJob& job);
  absl::StatusOr<DeliveryJob> Prepare(const Task& task);
  void OnEvent(const Task& task, const DeliveryJob& job, const v1::TaskEvent& event);
  // Returns when the executor has ended the task, or does not know it.
  void EndOnExecutor(const std::string& task_id, const std::string& reason);
  // Journals the end and hands the task to the delivery threads.
  void HandOver(const TaskPtr& task, Ended ended);
  void Deliver(Delivery& delivery);
  // One that was taken out of deliveries_, into delivering_.
  void DeliverTaken(Delivery& delivery);
  // The end of a task: record, metrics, terminal event.
  void Conclude(const TaskPtr& task, const absl::Status& status, const Json& details,
                JournalKeep keep);
  void Announce(const TaskPtr& task, std::string event);
  void OnAnnounced(const TaskPtr& task, absl::Duration concluded);
  // A task that never runs: fails it at once.
  void FailQueued(const TaskPtr& task, const absl::Status& status,
                  const Json& details = Json::object());

  WorkNow Now() const;
  // The first task that does not wait for its time: it goes past those that do. Null: none.
  TaskPtr DueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration UntilDueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LaneMayGoOnLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DeliveryMayGoOnLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RoomForDeliveryLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool DrainedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const WorkerOptions options_;
  const WorkerParts parts_;
  const std::string attempt_prefix_;  // of this life
  Presence presence_;                 // never called with mutex_ held
  absl::Duration ask_again_;          // monotonic; the lane's

  mutable absl::Mutex mutex_;
  bool registered_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool giving_up_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string last_task_ ABSL_GUARDED_BY(mutex_);

  std::deque<TaskPtr> queue_ ABSL_GUARDED_BY(mutex_);
  uint64_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool delay_is_new_ ABSL_GUARDED_BY(mutex_) = false;  // the lane is to look how long it may sleep
  uint64_t attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  TaskPtr running_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_event_ ABSL_GUARDED_BY(mutex_);  // of running_, monotonic
  // Ends that an earlier life could not tell: told once the worker is registered.
  std::vector<std::pair<TaskPtr, std::string>> restored_events_ ABSL_GUARDED_BY(mutex_);
  std::deque<DeliveryPtr> deliveries_ ABSL_GUARDED_BY(mutex_);
  std::set<TaskPtr> delivering_ ABSL_GUARDED_BY(mutex_);
  uint64_t undelivered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of both
  size_t untold_ ABSL_GUARDED_BY(mutex_) = 0;               // concluded, the event not tried yet

  std::thread lane_;
  std::vector<std::thread> delivery_;
};

}  // namespace flowmesh::sidecar
