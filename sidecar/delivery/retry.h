// When a send that failed is tried again, and how fast bytes may leave (PROTOCOL.md 6.6). Pure
// arithmetic on times that are passed in.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace flowmesh::sidecar {

// Whether a status of HTTP, or a failure of the network, may go away by itself.
bool IsRetryable(int http_status);
bool IsRetryable(const absl::Status& status);

// The value of a Retry-After header: seconds, or an HTTP date; nothing for others.
std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now);

// The pauses of one task's delivery: exponential from 0.5 s to 30 s with full jitter, for at most
// `limit` in all. Not thread-safe.
class RetrySchedule {
 public:
  // `random` draws from [0, 1).
  RetrySchedule(absl::Duration limit, std::function<double()> random)
      : limit_(limit), random_(std::move(random)) {}

  // How long to wait before the next try; nothing when the limit would be passed. `spent`: time of
  // this task's delivery so far, throttle waits left out. A Retry-After is the least pause.
  std::optional<absl::Duration> Next(absl::Duration spent,
                                     std::optional<absl::Duration> retry_after);
  // A send got through: the next one's failures start from the first pause again.
  void Reset() { failures_ = 0; }

 private:
  const absl::Duration limit_;
  const std::function<double()> random_;
  int failures_ = 0;
};

// One rate for everything that is sent. Thread-safe.
class Throttle {
 public:
  // Nothing: no limit.
  explicit Throttle(std::optional<double> bytes_per_second) : rate_(bytes_per_second) {}

  struct Slot {
    absl::Duration begin;  // may not start earlier
    absl::Duration end;    // may not be over earlier
  };
  // Reserves the time that `bytes` take, after all that was reserved before.
  Slot Reserve(uint64_t bytes, absl::Duration now);

  std::optional<double> rate() const { return rate_; }

 private:
  const std::optional<double> rate_;
  absl::Mutex mutex_;
  absl::Duration free_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
};

}  // namespace flowmesh::sidecar
