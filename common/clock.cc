#include "common/clock.h"

#include <chrono>

#include "common/strings.h"

namespace flowmesh {
namespace {

class RealClock : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  absl::Duration Monotonic() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  bool Await(absl::Mutex& mutex, const absl::Condition& condition,
             absl::Duration timeout) const override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return mutex.AwaitWithTimeout(condition, timeout);
  }
};

}  // namespace

Clock& Clock::Real() {
  static RealClock* const clock = new RealClock;
  return *clock;
}

absl::Time FakeClock::Now() const {
  absl::MutexLock lock(&mutex_);
  return now_;
}

absl::Duration FakeClock::Monotonic() const {
  absl::MutexLock lock(&mutex_);
  return monotonic_;
}

bool FakeClock::Await(absl::Mutex& mutex, const absl::Condition& condition,
                      absl::Duration timeout) const {
  const absl::Duration deadline = Monotonic() + timeout;
  // The caller's mutex cannot watch this clock's time, so the wait wakes now and then to look at
  // it.
  while (!mutex.AwaitWithTimeout(condition, absl::Milliseconds(1))) {
    if (Monotonic() >= deadline) return condition.Eval();
  }
  return true;
}

void FakeClock::Advance(absl::Duration d) {
  absl::MutexLock lock(&mutex_);
  now_ += d;
  monotonic_ += d;
}

void FakeClock::StepWall(absl::Duration d) {
  absl::MutexLock lock(&mutex_);
  now_ += d;
}

std::string FormatTimestamp(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E6S+00:00", time, absl::UTCTimeZone());
}

absl::Time ParseTimestamp(std::string_view text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime("%Y-%m-%dT%H:%M:%E*S%Ez", ToAbsl(text), &time, &error)) {
    return absl::InfinitePast();
  }
  return time;
}

}  // namespace flowmesh
