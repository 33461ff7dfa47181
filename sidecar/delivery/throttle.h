// How fast bytes may leave (PROTOCOL.md 6.6). Pure arithmetic on times that are passed in.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace flowmesh::sidecar {

// One rate for everything that is sent. Thread-safe.
class Throttle {
 public:
  // Nothing: no limit.
  explicit Throttle(std::optional<double> bytes_per_second) : rate_(bytes_per_second) {}

  // Reserves the time that `bytes` take, after all that was reserved before and not before
  // `earliest`. Returns its end: when they may have left.
  absl::Duration Reserve(uint64_t bytes, absl::Duration earliest);

  std::optional<double> rate() const { return rate_; }

 private:
  const std::optional<double> rate_;
  absl::Mutex mutex_;
  absl::Duration free_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace flowmesh::sidecar
