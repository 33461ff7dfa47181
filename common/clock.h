// Time behind a seam, so that tests never wait. Wall time is for time stamps only; every duration
// comes from the monotonic clock, so that a stepped wall clock harms nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace flowmesh {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  virtual absl::Time Now() const = 0;            // wall clock
  virtual absl::Duration Monotonic() const = 0;  // since an arbitrary start, never goes back

  // Waits until `condition` holds or `timeout` has passed on this clock; `mutex` is held before and
  // after. Returns whether the condition holds.
  virtual bool Await(absl::Mutex& mutex, const absl::Condition& condition,
                     absl::Duration timeout) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) = 0;

  // The machine's clock; lives for ever.
  static Clock& Real();
};

// A clock that moves only when told to. Waiters wake as time passes their deadline.
class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time now = absl::FromUnixSeconds(1762160400)) : now_(now) {}

  absl::Time Now() const override;
  absl::Duration Monotonic() const override;
  bool Await(absl::Mutex& mutex, const absl::Condition& condition,
             absl::Duration timeout) const override ABSL_NO_THREAD_SAFETY_ANALYSIS;

  void Advance(absl::Duration d);   // both clocks
  void StepWall(absl::Duration d);  // the wall clock only, either way

 private:
  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
  absl::Duration monotonic_ ABSL_GUARDED_BY(mutex_) = absl::ZeroDuration();
};

// The machine's monotonic time in seconds, since an arbitrary start.
inline double MonotonicSeconds() { return absl::ToDoubleSeconds(Clock::Real().Monotonic()); }

// `2025-11-03T09:00:00.123456+00:00`: always UTC, six fractional digits (PROTOCOL.md 2.2).
std::string FormatTimestamp(absl::Time time);

// Reads that form, also without a fraction, and with `Z`. InfinitePast when it is none.
absl::Time ParseTimestamp(std::string_view text);

}  // namespace flowmesh
