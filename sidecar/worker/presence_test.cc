#include "sidecar/worker/presence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Stands for Redis: takes what it is sent, or not, and remembers the types of events.
class Channel : public NoPublisher {
 public:
  void Transaction(std::vector<redis::Command> commands,
                   std::function<void(const absl::Status&)> done) override {
    const absl::Status answer = away_ ? absl::UnavailableError("away") : absl::OkStatus();
    if (answer.ok()) {
      for (const redis::Command& command : commands) {
        if (command[0] == "PUBLISH") events_.push_back(ParseJson(command[2]).value()["type"]);
      }
    }
    if (done) done(answer);
  }
  void Register(std::vector<redis::Command> commands,
                std::function<void(const absl::Status&)> done) override {
    Transaction(std::move(commands), std::move(done));
  }
  void SetAway(bool away) { away_ = away; }
  std::vector<std::string> TakeEvents() { return std::exchange(events_, {}); }

 private:
  bool away_ = false;
  std::vector<std::string> events_;
};

class PresenceTest : public ::testing::Test {
 protected:
  PresenceTest()
      : presence_({.worker_id = "w", .instance_id = "i"}, absl::Seconds(30), clock_.Monotonic(),
                  {.clock = clock_, .publisher = channel_, .metrics = metrics_},
                  [this] { return work_; }) {
    work_.can_work = true;
    presence_.SetSubscribed(true);
  }

  FakeClock clock_;
  Channel channel_;
  SidecarMetrics metrics_{"0"};
  WorkNow work_;
  Presence presence_;
};

TEST_F(PresenceTest, AFailedBeatIsDueOnceMore) {
  presence_.Register();
  EXPECT_THAT(channel_.TakeEvents(), ElementsAre("REGISTER", "HEARTBEAT", "STATUS"));
  presence_.BeatIfDue();
  EXPECT_THAT(channel_.TakeEvents(), IsEmpty());
  channel_.SetAway(true);
  presence_.Beat();
  presence_.BeatIfDue();
  channel_.SetAway(false);
  presence_.BeatIfDue();
  presence_.BeatIfDue();
  EXPECT_THAT(channel_.TakeEvents(), ElementsAre("HEARTBEAT"));
}

TEST_F(PresenceTest, ARegistrationIsDueUntilItIsTaken) {
  EXPECT_FALSE(presence_.registration_due());
  channel_.SetAway(true);
  presence_.Register();
  EXPECT_FALSE(presence_.is_known());
  EXPECT_TRUE(presence_.registration_due());
  channel_.SetAway(false);
  presence_.RegisterAgain("start");
  EXPECT_TRUE(presence_.is_known());
  EXPECT_FALSE(presence_.registration_due());
  presence_.Update();
  presence_.Update();
  presence_.BeatIfDue();
  EXPECT_THAT(channel_.TakeEvents(), ElementsAre("REGISTER", "STATUS", "HEARTBEAT"));
  presence_.SetHardware({{"cpu", "another"}});
  EXPECT_TRUE(presence_.registration_due());
  presence_.RegisterAgain("hardware");
  EXPECT_FALSE(presence_.registration_due());
}

TEST_F(PresenceTest, KnowsWhatRedisShows) {
  presence_.Register();
  EXPECT_EQ(presence_.written_status(), WorkerStatus::kIdle);
  channel_.SetAway(true);
  presence_.SetSubscribed(false);
  presence_.Beat();
  EXPECT_EQ(presence_.true_status(), WorkerStatus::kStarting);
  EXPECT_EQ(presence_.written_status(), WorkerStatus::kIdle);
  channel_.SetAway(false);
  presence_.Update();
  EXPECT_EQ(presence_.written_status(), WorkerStatus::kStarting);
}

TEST_F(PresenceTest, SaysWhenACheckIsSooner) {
  int told = 0;
  presence_.SetOnSoonerCheck([&] { ++told; });
  presence_.CheckLater();
  EXPECT_EQ(told, 1);
  EXPECT_EQ(presence_.next_check(), clock_.Monotonic() + absl::Milliseconds(300));
  clock_.Advance(absl::Milliseconds(100));
  presence_.CheckLater();  // who waits for the first finds this one later
  EXPECT_EQ(told, 1);
  clock_.Advance(absl::Milliseconds(300));
  presence_.ClearChecksUntil(clock_.Monotonic());
  presence_.CheckLater();
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace flowmesh::sidecar
