#include "common/clock.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace flowmesh {
namespace {

TEST(ClockTest, TheFakeClockMovesOnlyWhenTold) {
  FakeClock clock(absl::FromUnixSeconds(1000));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(1000));
  EXPECT_EQ(clock.Monotonic(), absl::ZeroDuration());
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(1005));
  EXPECT_EQ(clock.Monotonic(), absl::Seconds(5));
}

TEST(ClockTest, AStepOfTheWallClockMovesNothingElse) {
  FakeClock clock(absl::FromUnixSeconds(1000));
  clock.StepWall(-absl::Hours(1));
  EXPECT_EQ(clock.Now(), absl::FromUnixSeconds(1000) - absl::Hours(1));
  EXPECT_EQ(clock.Monotonic(), absl::ZeroDuration());
}

TEST(ClockTest, AwaitReturnsWhatTheConditionSays) {
  for (const Clock* clock :
       {static_cast<const Clock*>(&Clock::Real()), static_cast<const Clock*>(new FakeClock)}) {
    absl::Mutex mutex;
    bool yes = true, no = false;
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(clock->Await(mutex, absl::Condition(&yes), absl::ZeroDuration()));
    EXPECT_FALSE(clock->Await(mutex, absl::Condition(&no), absl::ZeroDuration()));
    if (clock != &Clock::Real()) delete clock;
  }
}

// A thread that awaits `condition` for 10 s on a fake clock.
class Waiter {
 public:
  explicit Waiter(const FakeClock& clock)
      : thread_([this, &clock] {
          absl::MutexLock lock(&mutex_);
          waiting_ = true;
          result_ = clock.Await(mutex_, absl::Condition(&condition_), absl::Seconds(10));
        }) {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&waiting_));
  }

  void Set() {
    absl::MutexLock lock(&mutex_);
    condition_ = true;
  }
  bool Join() {
    thread_.join();
    return result_;
  }

 private:
  absl::Mutex mutex_;
  bool waiting_ = false, condition_ = false, result_ = false;
  std::thread thread_;
};

TEST(ClockTest, AWaiterWakesWhenItsConditionHolds) {
  FakeClock clock;
  Waiter waiter(clock);
  waiter.Set();
  EXPECT_TRUE(waiter.Join());
  EXPECT_EQ(clock.Monotonic(), absl::ZeroDuration());
}

TEST(ClockTest, AWaiterWakesWhenItsTimeHasPassed) {
  FakeClock clock;
  Waiter waiter(clock);
  clock.Advance(absl::Seconds(4));
  clock.Advance(absl::Seconds(6));
  EXPECT_FALSE(waiter.Join());
}

TEST(ClockTest, TheRealClockWaitsItsTime) {
  absl::Mutex mutex;
  bool never = false;
  const absl::Duration before = Clock::Real().Monotonic();
  absl::MutexLock lock(&mutex);
  EXPECT_FALSE(Clock::Real().Await(mutex, absl::Condition(&never), absl::Milliseconds(20)));
  EXPECT_GE(Clock::Real().Monotonic() - before, absl::Milliseconds(20));
}

// Deadlines of many waiters, each with a mutex of its own, in an order other than that of time.
TEST(ClockTest, ManyWaitOnTheRealClock) {
  std::vector<std::thread> threads;
  for (const int ms : {80, 20, 140, 50, 110, 20}) {
    threads.emplace_back([ms] {
      const absl::Duration timeout = absl::Milliseconds(ms);
      const absl::Duration start = Clock::Real().Monotonic();
      absl::Mutex mutex;
      const bool never = false;
      absl::MutexLock lock(&mutex);
      EXPECT_FALSE(Clock::Real().Await(mutex, absl::Condition(&never), timeout));
      EXPECT_GE(Clock::Real().Monotonic() - start, timeout);
      EXPECT_LT(Clock::Real().Monotonic() - start, timeout + absl::Seconds(5));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Waiters that are woken, and whose mutex is gone right after, while others' time runs out.
TEST(ClockTest, AConditionThatComesTrueEndsTheWait) {
  for (int round = 0; round < 200; ++round) {
    absl::Mutex mutex;
    bool set = false;
    std::thread setter([&] {
      absl::MutexLock lock(&mutex);
      set = true;
    });
    {
      absl::MutexLock lock(&mutex);
      // Now and then both happen at once.
      const absl::Duration timeout = round % 2 == 0 ? absl::Hours(1) : absl::Microseconds(50);
      const bool came = Clock::Real().Await(mutex, absl::Condition(&set), timeout);
      EXPECT_EQ(came, set);
      EXPECT_TRUE(came || round % 2 == 1);
    }
    setter.join();
  }
}

TEST(ClockTest, AForeverIsForever) {
  absl::Mutex mutex;
  bool set = false;
  std::thread setter([&] {
    absl::MutexLock lock(&mutex);
    set = true;
  });
  {
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(Clock::Real().Await(mutex, absl::Condition(&set), absl::InfiniteDuration()));
  }
  setter.join();
}

TEST(ClockTest, TimestampsAreUtcWithSixDigits) {
  const absl::Time time = absl::FromUnixMicros(1762160400123456);
  EXPECT_EQ(FormatTimestamp(time), "2025-11-03T09:00:00.123456+00:00");
  EXPECT_EQ(FormatTimestamp(absl::FromUnixSeconds(1762160400)), "2025-11-03T09:00:00.000000+00:00");
  // Nanoseconds are cut, not rounded: a stamp is never ahead of its time.
  EXPECT_EQ(FormatTimestamp(time + absl::Nanoseconds(999)), "2025-11-03T09:00:00.123456+00:00");
}

TEST(ClockTest, TimestampsAreReadBack) {
  const absl::Time time = absl::FromUnixMicros(1762160400123456);
  EXPECT_EQ(ParseTimestamp(FormatTimestamp(time)), time);
  EXPECT_EQ(ParseTimestamp("2025-11-03T09:00:00.123456Z"), time);
  EXPECT_EQ(ParseTimestamp("2025-11-03T10:30:00.123456+01:30"), time);
  EXPECT_EQ(ParseTimestamp("2025-11-03T09:00:00+00:00"), absl::FromUnixSeconds(1762160400));
  for (const char* bad : {"", "now", "2025-11-03", "2025-11-03T09:00:00", "2025-13-03T09:00:00Z",
                          "2025-11-03T09:00:00Z and more", "1762160400"}) {
    EXPECT_EQ(ParseTimestamp(bad), absl::InfinitePast()) << bad;
  }
}

}  // namespace
}  // namespace flowmesh
