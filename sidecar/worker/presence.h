// What Redis shows of one worker: its registration, its true status and its heartbeats (PROTOCOL.md
// sections 2, 3 and 5.5).
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/json.h"
#include "sidecar/metrics/metrics.h"
#include "sidecar/worker/publisher.h"
#include "sidecar/worker/wire.h"

namespace flowmesh::sidecar {

// What the worker does at the moment, as far as it shows.
struct WorkNow {
  bool can_work = false;     // the executor is there
  bool has_work = false;     // a task waits, runs, or is not told of
  bool is_untold = false;    // a task's end is on its way
  std::string running_task;  // empty: none
  std::string last_task;     // the last one told of
  size_t queue_depth = 0;
};

// Thread-safe. It asks for the work whenever a status is due, so that the last status written is
// the true one whoever changed what: `work` may lock what guards the work, and nobody calls this
// class with that lock held.
class Presence {
 public:
  // What it uses and does not own; all of it outlives this.
  struct Parts {
    const Clock& clock;
    Publisher& publisher;
    SidecarMetrics& metrics;
  };
  // `process_start`: monotonic.
  Presence(Registration registration, absl::Duration heartbeat_interval,
           absl::Duration process_start, Parts parts, std::function<WorkNow()> work);

  // Registers as STARTING, with a first heartbeat; from here on statuses are published.
  void Register();
  // REGISTER with the true status; a status and a heartbeat are due then. Nothing unless Register
  // was called.
  // `reason` is a metric's label.
  void RegisterAgain(const char* reason);
  bool registered() const;  // Register was called
  // Redis has taken a registration of this process.
  bool is_known() const { return taken_ > 0; }
  // What Redis has taken is not what is to be registered.
  bool registration_due() const;
  void Unregister(absl::Duration uptime, const Json& power_summary,
                  std::function<void(const absl::Status&)> done);
  void SetSubscribed(bool subscribed);
  void SetDraining();
  void SetHardware(Json hardware);  // a registration is due then
  void SetBeatMetrics(Json metrics, Json power);

  // Something changed: writes the true status, with its event, unless it was written last.
  void Update();
  // What was written last is not what Redis shows: the next Update writes in any case.
  void SetStatusDue() { status_due_ = true; }
  // Writes it whatever was written before, with more commands in the same transaction.
  void Write(std::vector<redis::Command> and_then = {});
  // Somebody else wrote this status.
  void OnForeignStatus(const std::string& status);
  // A terminal event was published: the status is to be compared a little later, and again.
  void CheckLater();
  // When that is due, if at all; monotonic.
  std::optional<absl::Duration> next_check() const;
  // Called, without locks, when that has become sooner. Set before anything else happens.
  void SetOnSoonerCheck(std::function<void()> on_sooner) { on_sooner_ = std::move(on_sooner); }
  void ClearChecksUntil(absl::Duration now);

  void Beat();
  // The same when the last one did not arrive, or a registration asks for one.
  void BeatIfDue();
  // Since Redis took the last heartbeat; since the start before the first.
  absl::Duration beat_age() const;

  WorkerStatus true_status() const;
  // What Redis took last.
  WorkerStatus written_status() const { return written_; }
  Json hardware() const;

  // No more statuses.
  void Stop();

 private:
  WorkerStatus TrueStatusLocked(const WorkNow& work) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteLocked(const WorkNow& work, std::vector<redis::Command> and_then = {})
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RegisterLocked(WorkerStatus status, const char* reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeatLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration heartbeat_interval_, process_start_;
  const Parts parts_;
  const std::function<WorkNow()> work_;
  std::function<void()> on_sooner_ = [] {};

  mutable absl::Mutex mutex_;
  Registration registration_ ABSL_GUARDED_BY(mutex_);
  bool registered_ ABSL_GUARDED_BY(mutex_) = false;
  bool subscribed_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Json beat_metrics_ ABSL_GUARDED_BY(mutex_) = Json::object();
  Json power_ ABSL_GUARDED_BY(mutex_);
  std::optional<WorkerStatus> shown_ ABSL_GUARDED_BY(mutex_);  // sent last
  uint64_t wanted_ ABSL_GUARDED_BY(mutex_) = 1;                // version of the registration
  std::deque<absl::Duration> checks_ ABSL_GUARDED_BY(mutex_);  // due times
  // Set where Redis' answers arrive, perhaps with the mutex held.
  std::atomic<int64_t> last_beat_ns_;  // monotonic; that Redis took
  std::atomic<uint64_t> taken_{0};     // version of the registration that Redis took
  std::atomic<WorkerStatus> written_{WorkerStatus::kStarting};
  std::atomic<bool> beat_due_{false}, status_due_{false};
};

}  // namespace flowmesh::sidecar
