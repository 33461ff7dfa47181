#include "common/clock.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "common/strings.h"

namespace flowmesh {
namespace {

using SteadyClock = std::chrono::steady_clock;

// One waiter's deadline.
struct Alarm {
  absl::Mutex* mutex;  // the waiter's, which guards `rung`
  bool rung = false;
  std::multimap<SteadyClock::time_point, Alarm*>::iterator place;  // until it has rung
};

// Wakes waiters at monotonic times. Abseil's own time-outs hold against the wall clock: one that is
// set back an hour would make them an hour longer.
class AlarmClock {
 public:
  AlarmClock() {
    // Signals are for the program's own threads.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([this] { Loop(); }).detach();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  // Both while alarm.mutex is held. After Cancel the alarm is not touched any more.
  void Set(SteadyClock::time_point when, Alarm& alarm) {
    const std::lock_guard lock(mutex_);
    alarm.place = alarms_.emplace(when, &alarm);
    if (alarm.place == alarms_.begin()) earlier_.notify_one();
  }
  void Cancel(const Alarm& alarm) {
    const std::lock_guard lock(mutex_);
    if (!alarm.rung) alarms_.erase(alarm.place);
  }

 private:
  [[noreturn]] void Loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      if (alarms_.empty()) {
        earlier_.wait(lock);
        continue;
      }
      const SteadyClock::time_point when = alarms_.begin()->first, now = SteadyClock::now();
      if (now < when) {
        earlier_.wait_until(lock, when);
      } else {
        Ring(now);
      }
    }
  }

  // The first of them. Whoever holds the waiter's mutex may wait for ours: no waiting for it.
  void Ring(SteadyClock::time_point now) {
    Alarm* const alarm = alarms_.begin()->second;
    alarms_.erase(alarms_.begin());
    if (alarm->mutex->TryLock()) {
      alarm->rung = true;
      alarm->mutex->Unlock();
    } else {
      alarm->place = alarms_.emplace(now + std::chrono::milliseconds(1), alarm);
    }
  }

  std::mutex mutex_;
  std::condition_variable earlier_;
  std::multimap<SteadyClock::time_point, Alarm*> alarms_;  // that have not rung
};

AlarmClock& Alarms() {
  static AlarmClock* const alarms = new AlarmClock;
  return *alarms;
}

class RealClock : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
  absl::Duration Monotonic() const override {
    return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
  }
  bool Await(absl::Mutex& mutex, const absl::Condition& condition,
             absl::Duration timeout) const override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    constexpr absl::Duration kForEver = absl::Hours(24 * 365);
    if (timeout > kForEver) mutex.Await(condition);
    if (condition.Eval() || timeout <= absl::ZeroDuration()) return condition.Eval();
    Alarm alarm{&mutex};
    const auto over = [&]() { return alarm.rung || condition.Eval(); };
    Alarms().Set(SteadyClock::now() + absl::ToChronoNanoseconds(timeout), alarm);
    mutex.Await(absl::Condition(&over));
    Alarms().Cancel(alarm);
    return condition.Eval();
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
