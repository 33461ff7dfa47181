// What an executor does, without any transport: it accepts one task at a time, keeps its events for
// whoever asks, cancels it, and remembers finished tasks within bounds. The gRPC service translates
// to this class and nothing more; tests step it by hand.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/status.h"
#include "executors/launch/cancel_signal.h"
#include "executors/launch/task_backend.h"
#include "executors/server/event_log.h"
#include "executors/server/task_types.h"

namespace flowmesh::executor {

struct ExecutorCoreOptions {
  size_t finished_tasks = 64;             // remembered, the newest first
  uint64_t finished_bytes = 64ull << 20;  // of their events; the newest is kept whatever its size
  // What a task gets to end by itself when the executor stops.
  absl::Duration stop_grace = absl::Seconds(5);
  // A task whose ranks report no progress and log nothing for so long has hung and is ended. Not
  // for echo, which is over at once.
  absl::Duration progress_timeout = absl::InfiniteDuration();
  // After so long without a task for the backend it releases what it keeps warm.
  absl::Duration idle_release = absl::InfiniteDuration();
  // Called once per task that ends, with its type (`unknown` when it names none) and its outcome
  // (EventLog::outcome).
  std::function<void(const std::string& type, const std::string& outcome, absl::Duration)> on_end;
};

// Thread-safe. `backend` is called by RunNext only.
class ExecutorCore {
 public:
  // `types` and `backend` must outlive this.
  ExecutorCore(ExecutorCoreOptions options, const TaskTypes& types, TaskBackend& backend,
               const Clock& clock);

  // Accepts a task, or finds the known attempt, and returns its events. An echo task is over when
  // this returns; others run in RunNext. Errors as executor.proto says: InvalidArgument,
  // ResourceExhausted, FailedPrecondition.
  absl::StatusOr<std::shared_ptr<EventLog>> Execute(const v1::ExecuteRequest& request);

  // NotFound: unknown, or forgotten.
  absl::StatusOr<std::shared_ptr<EventLog>> Attach(const std::string& task_id,
                                                   const std::string& attempt) const;

  // Ends the running task `task_id` and waits until it is over (at most grace + 10 s). False when
  // that task does not run.
  bool Cancel(const std::string& task_id, absl::Duration grace, std::string reason);

  // Waits for an accepted task and runs it to its end. False once Stop was called and nothing is
  // left to run. For one long-lived thread.
  bool RunNext();

  // Refuses further tasks and cancels the running one. Returns at once.
  void Stop();

  // Empty when idle.
  std::string running_task_id() const;
  bool stopping() const;

 private:
  using Key = std::pair<std::string, std::string>;  // task_id, attempt

  struct Running {
    v1::ExecuteRequest request;
    Json document;
    std::string type;  // canonical
    std::shared_ptr<EventLog> log;
    CancelSignal cancel;
    std::atomic<bool> hung{false};  // and therefore cancelled
    absl::Duration started;
  };

  void EndHung(Running& task) const;
  static TaskEnd RunEcho(Running& task);
  void Finish(const std::shared_ptr<Running>& task, TaskEnd end);
  void RememberLocked(const Key& key, std::shared_ptr<EventLog> log)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: neither came within `timeout`.
  bool WaitForWorkOrStop(absl::Duration timeout);
  bool WorkOrStopLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ExecutorCoreOptions options_;
  const TaskTypes& types_;
  TaskBackend& backend_;
  const Clock& clock_;

  mutable absl::Mutex mutex_;
  std::shared_ptr<Running> running_ ABSL_GUARDED_BY(mutex_);  // accepted and not over
  bool picked_up_ ABSL_GUARDED_BY(mutex_) = false;            // by RunNext
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // All attempts that are known: the running one and the finished ones.
  std::map<Key, std::shared_ptr<EventLog>> logs_ ABSL_GUARDED_BY(mutex_);
  std::deque<Key> finished_ ABSL_GUARDED_BY(mutex_);  // oldest first
  uint64_t finished_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace flowmesh::executor
