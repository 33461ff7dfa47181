// What a soak sees from outside, as an orchestrator that hears events and stores results, and what
// it makes of it.
#pragma once

#include <httplib.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "tests/chaos/history.h"
#include "tests/chaos/soak.h"
#include "tests/chaos/soak_plan.h"

namespace flowmesh::testing {

// The id of a child of a merged task.
std::string SoakChildId(const std::string& id, int child);

// Thread-safe.
class SoakObserver {
 public:
  // `beat`: the interval of heartbeats. `on_the_way`: what was published so shortly before the
  // other side goes deaf may be missed like what comes after.
  SoakObserver(absl::Duration beat, absl::Duration on_the_way)
      : beat_(beat), on_the_way_(on_the_way) {}

  // --- What comes in ----------------------------------------------------------------------------
  void OnEvent(const Json& event);
  // Stores results; answers questions for a task's record as an orchestrator does.
  void OnRequest(const httplib::Request& request, httplib::Response& reply);

  // --- What is done -----------------------------------------------------------------------------
  // It is published next. Without a task it is a probe, of which nothing is expected.
  void Published(const std::string& id, const std::string& worker, std::optional<SoakTask> task);
  // A journal says so.
  void Accepted(const std::string& id);
  // Between these two, messages may be missed and beats may be late.
  void BeginDeaf(const std::string& reason);
  void EndDeaf();
  // Beats may be late from now on, or no longer.
  void Disturb(bool disturbed);
  // The next beats are counted from another moment.
  void ForgetBeats();
  void Violate(const std::string& what);

  // --- What is known ----------------------------------------------------------------------------
  // Tasks and probes that may still end.
  size_t in_flight(const std::string& worker) const;
  bool Heard(const std::string& id) const;
  bool Ended(const std::string& id) const;
  // Everything has ended but what was missed.
  bool AllEnded() const;
  // Looks through the tasks' folders. `executor_kills`: so many tasks may have run again, and so
  // many may have failed for it.
  void CheckFiles(const std::filesystem::path& results, size_t executor_kills);
  // All but the time that it took.
  SoakReport Report() const;

 private:
  struct Sent {
    std::optional<SoakTask> task;
    std::string worker;
    bool heard = false;   // some sign of it came
    bool missed = false;  // it was sent into a deaf window without a sign
    std::string end;      // the terminal event
  };
  struct Beats {
    std::optional<absl::Duration> last;  // that came undisturbed from this life of the sidecar
    bool disturbed = false;              // since then, something stood between
    bool retried = false;                // since then, one came that made up for a lost one
    bool registering = false;            // a registration has a beat of its own, beside the others
  };

  // Between undisturbed beats none may be missing. After a disturbance one may come that was lost
  // in it, beside the schedule.
  void OnBeat(const std::string& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTaskEvent(const Json& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnEnd(const std::string& id, Sent& sent, const Json& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CheckEnd(const std::string& id, const Sent& sent, const Json& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The first sign of a task: what anybody outside has seen of it was accepted before.
  void Hear(const std::string& id, Sent& sent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // How often an executor or rank has run it.
  size_t CheckFolder(const std::string& id, const Sent& sent, const std::filesystem::path& folder)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DisturbLocked(bool disturbed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ViolateLocked(const std::string& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration beat_, on_the_way_;
  History history_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Sent> sent_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> stored_ ABSL_GUARDED_BY(mutex_);  // body, by task or child
  std::map<std::string, size_t> in_flight_ ABSL_GUARDED_BY(mutex_);    // by worker
  std::map<std::string, Beats> beats_ ABSL_GUARDED_BY(mutex_);         // by worker
  bool disturbed_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<absl::Duration> jitters_ ABSL_GUARDED_BY(mutex_);
  absl::Status violation_ ABSL_GUARDED_BY(mutex_);  // the first
  SoakReport report_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh::testing
