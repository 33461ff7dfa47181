#include "executors/rank/rank_link.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "executors/launch/frames.h"

namespace flowmesh::rank {
namespace {

constexpr absl::Duration kBound = absl::Seconds(30);

v1::ToRank RunMessage(const std::string& id) {
  v1::ToRank message;
  message.mutable_run()->mutable_task()->set_task_id(id);
  return message;
}

// A link and the executor's end of its socket.
class RankLinkTest : public ::testing::Test {
 protected:
  RankLinkTest() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    executor_ = UniqueFd(fds[0]);
    link_.emplace(UniqueFd(fds[1]), [this](const absl::Status& why) {
      lost_why_ = why;
      lost_.Notify();
    });
  }

  void Tell(const v1::ToRank& message) {
    ASSERT_TRUE(executor::WriteFrame(executor_.get(), message).ok());
  }

  bool StopsSoon() const {
    const absl::Duration deadline = Clock::Real().Monotonic() + kBound;
    while (!link_->is_stopped() && Clock::Real().Monotonic() < deadline) std::this_thread::yield();
    return link_->is_stopped();
  }

  UniqueFd executor_;
  absl::Notification lost_;
  absl::Status lost_why_;
  std::optional<RankLink> link_;
};

TEST_F(RankLinkTest, TasksComeInOrder) {
  Tell(RunMessage("a"));
  Tell(RunMessage("b"));
  EXPECT_EQ(link_->NextTask()->task().task_id(), "a");
  EXPECT_EQ(link_->NextTask()->task().task_id(), "b");
}

TEST_F(RankLinkTest, AStopIsSeenWhileATaskRuns) {
  Tell(RunMessage("a"));
  ASSERT_TRUE(link_->NextTask().has_value());
  EXPECT_FALSE(link_->is_stopped());
  v1::ToRank stop;
  stop.mutable_stop();
  Tell(stop);
  EXPECT_TRUE(StopsSoon());
}

TEST_F(RankLinkTest, ALateStopDoesNotReachTheNextTask) {
  v1::ToRank stop;
  stop.mutable_stop();
  Tell(stop);
  ASSERT_TRUE(StopsSoon());
  Tell(RunMessage("a"));
  ASSERT_TRUE(link_->NextTask().has_value());
  EXPECT_FALSE(link_->is_stopped());
}

TEST_F(RankLinkTest, AShutdownMessageEndsTheWait) {
  v1::ToRank shutdown;
  shutdown.mutable_shutdown();
  Tell(shutdown);
  EXPECT_FALSE(link_->NextTask().has_value());
}

TEST_F(RankLinkTest, ShutdownStopsTheRunningTaskToo) {
  link_->Shutdown();
  EXPECT_TRUE(link_->is_stopped());
  EXPECT_FALSE(link_->NextTask().has_value());
}

TEST_F(RankLinkTest, AClosedSocketIsALostExecutor) {
  executor_.Reset();
  ASSERT_TRUE(lost_.WaitForNotificationWithTimeout(kBound));
  EXPECT_TRUE(absl::IsNotFound(lost_why_));
}

TEST_F(RankLinkTest, AMalformedFrameIsALostExecutor) {
  ASSERT_EQ(::write(executor_.get(), "\x02\x00\x00\x00\xff\xff", 6), 6);
  ASSERT_TRUE(lost_.WaitForNotificationWithTimeout(kBound));
  EXPECT_TRUE(absl::IsInvalidArgument(lost_why_));
}

TEST_F(RankLinkTest, AMessageOfALaterVersionIsIgnored) {
  Tell(v1::ToRank());
  Tell(RunMessage("a"));
  EXPECT_EQ(link_->NextTask()->task().task_id(), "a");
}

TEST_F(RankLinkTest, MessagesArriveAndATooLargeOneIsRefused) {
  v1::FromRank message;
  message.mutable_log_line()->set_text("hello");
  EXPECT_TRUE(link_->Send(message).ok());
  v1::FromRank large;
  large.mutable_finished()->set_result_json(std::string(executor::kMaxFrameBytes, ' '));
  EXPECT_TRUE(absl::IsResourceExhausted(link_->Send(large)));
  v1::FromRank received;
  ASSERT_TRUE(executor::ReadFrame(executor_.get(), &received).ok());
  EXPECT_EQ(received.log_line().text(), "hello");
}

}  // namespace
}  // namespace flowmesh::rank
