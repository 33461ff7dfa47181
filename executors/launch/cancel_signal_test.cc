#include "executors/launch/cancel_signal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "executors/launch/backoff.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;

TEST(CancelSignal, ACallbackSetLateHearsOfTheRequest) {
  CancelSignal signal;
  EXPECT_FALSE(signal.requested());
  signal.Request(absl::Seconds(3), "first");
  signal.Request(absl::ZeroDuration(), "second");
  std::vector<absl::Duration> heard;
  signal.SetCallback([&](absl::Duration grace) { heard.push_back(grace); });
  signal.Request(absl::Seconds(1), "third");
  signal.SetCallback(nullptr);
  signal.Request(absl::Seconds(2), "fourth");
  EXPECT_THAT(heard, ElementsAre(absl::ZeroDuration(), absl::Seconds(1)));
  EXPECT_EQ(signal.reason(), "first");
}

TEST(CancelSignal, WaitingEndsWithTheRequest) {
  FakeClock clock;
  CancelSignal signal;
  EXPECT_FALSE(signal.WaitFor(clock, absl::ZeroDuration()));
  std::thread other([&] { signal.Request(absl::ZeroDuration(), "x"); });
  EXPECT_TRUE(signal.WaitFor(Clock::Real(), absl::Seconds(30)));
  other.join();
}

TEST(Backoff, DoublesUpToItsBoundAndIsResetBySuccess) {
  Backoff backoff(absl::Seconds(1), absl::Seconds(3));
  const absl::Duration now = absl::Seconds(100);
  EXPECT_EQ(backoff.Wait(now), absl::ZeroDuration());
  backoff.Failed(now);
  EXPECT_EQ(backoff.Wait(now), absl::Seconds(1));
  EXPECT_EQ(backoff.Wait(now + absl::Seconds(5)), absl::ZeroDuration());
  backoff.Failed(now);
  EXPECT_EQ(backoff.Wait(now), absl::Seconds(2));
  backoff.Failed(now);
  EXPECT_EQ(backoff.Wait(now), absl::Seconds(3));
  backoff.Succeeded();
  EXPECT_EQ(backoff.Wait(now), absl::ZeroDuration());
  backoff.Failed(now);
  EXPECT_EQ(backoff.Wait(now), absl::Seconds(1));
}

}  // namespace
}  // namespace flowmesh::executor
