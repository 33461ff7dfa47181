#include "sidecar/worker/announcer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Stands for Redis: `receivers` is what PUBLISH answers; negative: no connection.
class Channel : public NoPublisher {
 public:
  void PublishTaskEvents(const std::vector<std::string>& events,
                         std::function<void(const ReceiversOrStatus&)> done) override {
    int64_t receivers = 0;
    {
      absl::MutexLock lock(&mutex_);
      ++tries_;
      receivers = receivers_;
      if (receivers > 0) received_.insert(received_.end(), events.begin(), events.end());
    }
    if (receivers < 0) return done(absl::UnavailableError("no connection"));
    done(std::vector<int64_t>(events.size(), receivers));
  }
  void SetReceivers(int64_t receivers) {
    absl::MutexLock lock(&mutex_);
    receivers_ = receivers;
  }
  std::vector<std::string> received() {
    absl::MutexLock lock(&mutex_);
    return received_;
  }
  // Waits until there have been `tries` publications.
  bool WaitTries(int tries) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return tries_ >= tries; };
    return mutex_.AwaitWithTimeout(absl::Condition(&reached), absl::Seconds(10));
  }

 private:
  absl::Mutex mutex_;
  int tries_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t receivers_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<std::string> received_ ABSL_GUARDED_BY(mutex_);
};

class AnnouncerTest : public ::testing::Test {
 protected:
  TerminalEvent Event(const std::string& json, const std::string& worker = "w") {
    return {.worker_id = worker, .task_id = json, .json = json, .received = clock_.Monotonic()};
  }

  FakeClock clock_;
  Channel channel_;
};

TEST_F(AnnouncerTest, WaitsForTheFloorAndNotLonger) {
  Announcer announcer({.floor = absl::Milliseconds(50)}, clock_, channel_);
  announcer.Add(Event("a"));
  clock_.Advance(absl::Milliseconds(49));
  EXPECT_FALSE(announcer.WaitReceived(absl::ZeroDuration()));
  EXPECT_THAT(channel_.received(), IsEmpty());
  clock_.Advance(absl::Milliseconds(1));
  ASSERT_TRUE(channel_.WaitTries(1));
  EXPECT_THAT(channel_.received(), ElementsAre("a"));
}

TEST_F(AnnouncerTest, AForeignRunningLiftsTheFloorOfEarlierEnvelopesOnly) {
  Announcer announcer({.floor = absl::Seconds(50)}, clock_, channel_);
  const TerminalEvent early = Event("a");
  clock_.Advance(absl::Milliseconds(1));
  announcer.ForeignRunningSeen("w");
  announcer.Add(early);
  ASSERT_TRUE(channel_.WaitTries(1));
  clock_.Advance(absl::Milliseconds(1));
  announcer.Add(Event("b"));
  announcer.Add(Event("c", "another"));
  clock_.Advance(absl::Milliseconds(1));
  announcer.ForeignRunningSeen("w");
  ASSERT_TRUE(channel_.WaitTries(2));
  EXPECT_THAT(channel_.received(), ElementsAre("a", "b"));
  // The other worker's still waits.
  EXPECT_FALSE(announcer.WaitReceived(absl::ZeroDuration()));
}

TEST_F(AnnouncerTest, PublishesAgainInOrderUntilSomebodyReceives) {
  channel_.SetReceivers(0);
  Announcer announcer({.floor = absl::ZeroDuration()}, clock_, channel_);
  absl::Notification tried;
  TerminalEvent first = Event("a");
  first.on_tried = [&] { tried.Notify(); };
  announcer.Add(std::move(first));
  ASSERT_TRUE(tried.WaitForNotificationWithTimeout(absl::Seconds(10)));
  announcer.Add(Event("b"));
  EXPECT_EQ(announcer.pending(), 2u);
  channel_.SetReceivers(-1);
  clock_.Advance(absl::Seconds(1));
  ASSERT_TRUE(channel_.WaitTries(2));
  EXPECT_THAT(channel_.received(), IsEmpty());
  channel_.SetReceivers(1);
  announcer.Kick();
  ASSERT_TRUE(channel_.WaitTries(3));
  EXPECT_TRUE(announcer.WaitReceived(absl::Seconds(1)));
  EXPECT_THAT(channel_.received(), ElementsAre("a", "b"));
  EXPECT_GE(announcer.retries(), 2u);
}

TEST_F(AnnouncerTest, GivesUpAfterTheLimitAndSaysSo) {
  channel_.SetReceivers(0);
  Announcer announcer({.floor = absl::ZeroDuration(), .retry_limit = absl::Seconds(10)}, clock_,
                      channel_);
  absl::Notification tried;
  TerminalEvent event = Event("a");
  event.on_tried = [&] { tried.Notify(); };
  announcer.Add(std::move(event));
  ASSERT_TRUE(tried.WaitForNotificationWithTimeout(absl::Seconds(10)));
  clock_.Advance(absl::Seconds(11));
  ASSERT_TRUE(channel_.WaitTries(2));
  EXPECT_TRUE(announcer.WaitReceived(absl::Seconds(1)));
  EXPECT_EQ(announcer.given_up(), 1u);
  EXPECT_THAT(channel_.received(), IsEmpty());
}

}  // namespace
}  // namespace flowmesh::sidecar
