// Tasks that end whatever runs them (PROMISES.md P13): deaths are counted per task, its next tries
// wait, and after some it is not run again.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace flowmesh::sidecar {

struct QuarantineOptions {
  int deaths = 3;  // after which a task is not run again; 0: never
  // Between a death and the next try; doubled with each death.
  absl::Duration first_delay = absl::Seconds(1);
  absl::Duration most_delay = absl::Minutes(1);
  size_t tasks = 10'000;  // remembered, the newest first
};

// Thread-safe. A task is its id together with the fingerprint of its document: another document
// under the same id begins anew.
class Quarantine {
 public:
  Quarantine(QuarantineOptions options, const Clock& clock) : options_(options), clock_(clock) {}

  // A run of the task ended its rank or its executor.
  void CountDeath(const std::string& task_id, const std::string& fingerprint);
  // The task succeeded.
  void Forget(const std::string& task_id);

  // Why it may not run; empty when it may.
  std::string WhyHeld(const std::string& task_id, const std::string& fingerprint) const;
  // How long its next try waits.
  absl::Duration Delay(const std::string& task_id, const std::string& fingerprint) const;

 private:
  struct Entry {
    std::string fingerprint;
    int deaths = 0;
    absl::Duration next_try;  // monotonic
  };
  // Null: no death is known.
  const Entry* FindLocked(const std::string& task_id, const std::string& fingerprint) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const QuarantineOptions options_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);  // by task id
  std::deque<std::string> order_ ABSL_GUARDED_BY(mutex_);         // of their first death
};

}  // namespace flowmesh::sidecar
