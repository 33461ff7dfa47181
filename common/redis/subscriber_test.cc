#include "common/redis/subscriber.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/redis/listening.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

SubscriberOptions Short() {
  SubscriberOptions options;
  options.connect_timeout = absl::Milliseconds(300);
  options.ping_interval = absl::Milliseconds(20);
  options.deaf_limit = absl::Milliseconds(400);
  return options;
}

class SubscriberTest : public ::testing::Test {
 protected:
  Address address() const { return ParseRedisUrl(server_.url()).value(); }
  // How many subscribers got it.
  Json Publish(const std::string& channel, const std::string& payload) {
    return peer_->Command({"PUBLISH", channel, payload});
  }

  testing::RedisServer server_;
  // Made anew by tests that restart the server.
  std::optional<testing::RedisPeer> peer_{std::in_place, server_.port()};
};

TEST_F(SubscriberTest, MessagesInOrderFromEveryChannel) {
  Listening listening(address());
  ASSERT_TRUE(listening.WaitForLife(1));
  const std::string bytes("\0\r\n\xff$5", 6);
  EXPECT_EQ(Publish("tasks", "first"), 1);
  EXPECT_EQ(Publish("events", bytes), 1);
  EXPECT_EQ(Publish("other", "not for us"), 0);
  EXPECT_EQ(Publish("tasks", ""), 1);
  peer_->Command({"FLUSHALL"});  // subscriptions outlive it
  std::vector<Received> expected = {{"tasks", "first"}, {"events", bytes}, {"tasks", ""}};
  for (int i = 0; i < 2000; ++i) {
    expected.emplace_back("events", absl::StrCat(i));
    ASSERT_EQ(Publish("events", absl::StrCat(i)), 1);
  }
  ASSERT_TRUE(listening.WaitForMessages(expected.size()));
  EXPECT_EQ(listening.messages(), expected);
  EXPECT_EQ(listening.lives(), 1u);
  EXPECT_THAT(listening.deaths(), ::testing::IsEmpty());
}

TEST_F(SubscriberTest, AMessageOfTenMegabytes) {
  Listening listening(address());
  ASSERT_TRUE(listening.WaitForLife(1));
  std::string large(10 << 20, ' ');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 13);
  EXPECT_EQ(Publish("tasks", large), 1);
  EXPECT_EQ(Publish("tasks", "after"), 1);
  ASSERT_TRUE(listening.WaitForMessages(2));
  EXPECT_TRUE(listening.messages()[0].second == large);
  EXPECT_EQ(listening.messages()[1].second, "after");
  EXPECT_THAT(listening.deaths(), ::testing::IsEmpty());
}

TEST_F(SubscriberTest, ComesBackByItselfAndSaysSo) {
  Listening listening(address());
  for (size_t life = 1; life <= 3; ++life) {
    ASSERT_TRUE(listening.WaitForLife(life));
    EXPECT_EQ(Publish("tasks", absl::StrCat(life)), 1);
    ASSERT_TRUE(listening.WaitForMessages(life));
    EXPECT_EQ(peer_->Command({"CLIENT", "KILL", "TYPE", "pubsub"}), 1);
    ASSERT_TRUE(listening.WaitForDeath(life));
    EXPECT_EQ(listening.deaths().back(), "the server closed the connection");
  }
  ASSERT_TRUE(listening.WaitForLife(4));
  EXPECT_EQ(Publish("events", "4"), 1);
  ASSERT_TRUE(listening.WaitForMessages(4));
  EXPECT_EQ(listening.messages().back(), Received("events", "4"));
}

TEST_F(SubscriberTest, FindsARestartedServer) {
  Listening listening(address());
  ASSERT_TRUE(listening.WaitForLife(1));
  peer_.reset();
  server_.Kill();
  // First that it broke, then why it stays so.
  ASSERT_TRUE(listening.WaitForDeath(2));
  EXPECT_THAT(listening.deaths()[1], HasSubstr("refused"));
  server_.Start();
  peer_.emplace(server_.port());
  ASSERT_TRUE(listening.WaitForLife(2));
  EXPECT_EQ(Publish("tasks", "again"), 1);
  ASSERT_TRUE(listening.WaitForMessages(1));
}

TEST_F(SubscriberTest, ADeafServerIsNoticed) {
  Listening listening(address(), Short());
  ASSERT_TRUE(listening.WaitForLife(1));
  const absl::Duration start = Clock::Real().Monotonic();
  server_.Signal(SIGSTOP);
  ASSERT_TRUE(listening.WaitForDeath());
  EXPECT_GE(Clock::Real().Monotonic() - start, absl::Milliseconds(350));
  EXPECT_LT(Clock::Real().Monotonic() - start, absl::Seconds(10));
  EXPECT_THAT(listening.deaths()[0], StartsWith("silent for "));
  server_.Signal(SIGCONT);
  ASSERT_TRUE(listening.WaitForLife(2));
  EXPECT_EQ(Publish("tasks", "heard"), 1);
  ASSERT_TRUE(listening.WaitForMessages(1));
}

TEST_F(SubscriberTest, AQuietChannelIsNotDeaf) {
  SubscriberOptions options = Short();
  options.deaf_limit = absl::Seconds(1);
  Listening listening(address(), options);
  ASSERT_TRUE(listening.WaitForLife(1));
  // More pings than fit into the limit.
  const auto enough = static_cast<int64_t>(1.5 * (options.deaf_limit / options.ping_interval));
  ASSERT_TRUE(Eventually([&] { return peer_->Calls("ping") >= enough; }));
  EXPECT_THAT(listening.deaths(), ::testing::IsEmpty());
  EXPECT_EQ(Publish("tasks", "heard"), 1);
}

TEST_F(SubscriberTest, AForbiddenChannelIsToldOnceAndTriedAgain) {
  peer_->Command({"ACL", "SETUSER", "ann", "on", ">p", "+@all", "resetchannels", "&tasks"});
  Address ann = address();
  ann.user = "ann";
  ann.password = "p";
  Listening listening(ann);
  ASSERT_TRUE(listening.WaitForDeath());
  EXPECT_THAT(listening.deaths()[0], HasSubstr("NOPERM"));
  // The server's own record of attempts: one entry, counted.
  ASSERT_TRUE(Eventually([&] {
    const Json log = peer_->Command({"ACL", "LOG"});
    return log.size() == 1 && log[0][1].get<int>() >= 3;
  }));
  EXPECT_EQ(listening.deaths().size(), 1u);
  EXPECT_EQ(listening.lives(), 0u);
  peer_->Command({"ACL", "SETUSER", "ann", "&events"});
  ASSERT_TRUE(listening.WaitForLife(1));
  EXPECT_EQ(Publish("events", "now"), 1);
}

TEST_F(SubscriberTest, AWrongPasswordIsToldWithoutIt) {
  peer_->Command({"ACL", "SETUSER", "ann", "on", ">other", "+@all", "&*"});
  Address ann = address();
  ann.user = "ann";
  ann.password = "canary";
  Listening listening(ann);
  ASSERT_TRUE(listening.WaitForDeath());
  EXPECT_THAT(listening.deaths()[0], HasSubstr("WRONGPASS"));
  EXPECT_THAT(listening.deaths()[0], Not(HasSubstr("canary")));
  peer_->Command({"ACL", "SETUSER", "ann", ">canary"});
  ASSERT_TRUE(listening.WaitForLife(1));
}

TEST_F(SubscriberTest, ListensOverAUnixSocket) {
  Listening listening(ParseRedisUrl("unix://" + server_.socket().string()).value());
  ASSERT_TRUE(listening.WaitForLife(1));
  EXPECT_EQ(Publish("tasks", "over the socket"), 1);
  ASSERT_TRUE(listening.WaitForMessages(1));
}

TEST_F(SubscriberTest, EndsSoonInEveryState) {
  const absl::Duration start = Clock::Real().Monotonic();
  { const Listening unready(address()); }
  {
    Listening alive(address());
    ASSERT_TRUE(alive.WaitForLife(1));
    server_.Signal(SIGSTOP);
  }
  { const Listening deaf(address(), Short()); }
  server_.Signal(SIGCONT);
  {
    Address nobody = address();
    nobody.port = FreeLoopbackPort().value();
    Listening pausing(nobody);
    ASSERT_TRUE(pausing.WaitForDeath());
  }
  EXPECT_LT(Clock::Real().Monotonic() - start, absl::Seconds(10));
}

}  // namespace
}  // namespace flowmesh::redis
