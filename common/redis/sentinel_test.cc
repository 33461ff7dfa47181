#include "common/redis/sentinel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/redis/client.h"
#include "common/redis/listening.h"
#include "common/redis/state_log.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"
#include "tests/integration/sentinel.h"

namespace flowmesh::redis {
namespace {

using ::testing::AllOf;
using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;

Address Through(const std::vector<int>& sentinels, const std::string& parameters = "") {
  const auto append = [](std::string* out, int port) { absl::StrAppend(out, "127.0.0.1:", port); };
  return ParseRedisUrl(absl::StrCat("redis+sentinel://", absl::StrJoin(sentinels, ",", append),
                                    "/mymaster", parameters))
      .value();
}

// A master with a replica. Thread-compatible.
class Pair {
 public:
  testing::RedisServer master;
  testing::RedisServer replica{{"--replicaof", "127.0.0.1", absl::StrCat(master.port())}};
};

class SentinelTest : public ::testing::Test {
 protected:
  // Where a connection to `address` ends: the server's port.
  static int PortBehind(const Address& address, absl::Duration timeout = absl::Seconds(10)) {
    ConnectError error;
    const auto connection = Connection::Open(address, timeout, error);
    EXPECT_NE(connection, nullptr) << error.status;
    if (connection == nullptr) return 0;
    const absl::Duration deadline = Clock::Real().Monotonic() + absl::Seconds(10);
    const Reply reply = connection->Ask({"CONFIG", "GET", "port"}, deadline).value();
    return std::stoi(reply.elements.at(1).text);
  }
  static ConnectError ErrorOf(const Address& address) {
    ConnectError error;
    EXPECT_EQ(Connection::Open(address, absl::Seconds(10), error), nullptr);
    EXPECT_EQ(error.status.code(), absl::StatusCode::kUnavailable);
    return error;
  }
};

TEST_F(SentinelTest, TellsWhereTheMasterIs) {
  const testing::RedisServer server;
  const testing::Sentinel sentinel(server.port());
  EXPECT_EQ(PortBehind(Through({sentinel.port()})), server.port());
}

TEST_F(SentinelTest, TheNextOneIsAskedWhenOneIsDownOrDeafOrKnowsNothing) {
  const testing::RedisServer server;
  const testing::Sentinel good(server.port());
  EXPECT_EQ(PortBehind(Through({FreeLoopbackPort().value(), good.port()})), server.port());

  testing::Sentinel deaf(server.port());
  deaf.Signal(SIGSTOP);
  const absl::Duration start = Clock::Real().Monotonic();
  // It gets its share, not all.
  EXPECT_EQ(PortBehind(Through({deaf.port(), good.port()}), absl::Seconds(4)), server.port());
  EXPECT_LT(Clock::Real().Monotonic() - start, absl::Seconds(4));
  deaf.Signal(SIGCONT);

  Address other = Through({good.port()});
  other.master = "another";
  EXPECT_THAT(Message(ErrorOf(other).status),
              AllOf(HasSubstr(absl::StrCat("sentinel 127.0.0.1:", good.port())),
                    HasSubstr("it knows no master another")));
  EXPECT_EQ(ErrorOf(other).state, State::kLost);
}

TEST_F(SentinelTest, AServerThatIsNoSentinelIsSaidSo) {
  const testing::RedisServer server;
  const ConnectError error = ErrorOf(Through({server.port()}));
  EXPECT_EQ(error.state, State::kLost);
  EXPECT_THAT(Message(error.status), HasSubstr("SENTINEL: ERR unknown command"));
}

// Behind the times: the sentinel still names the server that has become a replica.
TEST_F(SentinelTest, AReplicaIsNotTakenForTheMaster) {
  Pair pair;
  testing::Sentinel stale(pair.replica.port());
  ASSERT_EQ(stale.MasterPort(), pair.replica.port());
  const ConnectError error = ErrorOf(Through({stale.port()}));
  EXPECT_EQ(error.state, State::kReadOnly);
  EXPECT_THAT(Message(error.status), HasSubstr("it is no master but a slave"));
  const testing::Sentinel good(pair.master.port());
  EXPECT_EQ(PortBehind(Through({stale.port(), good.port()})), pair.master.port());
}

TEST_F(SentinelTest, TheSentinelsHaveALoginOfTheirOwn) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command(
      {"ACL", "SETUSER", "ann", "on", ">master-canary", "+@connection", "+role", "+config"});
  const testing::Sentinel sentinel(server.port(),
                                   {"user bob on >sentinel-canary -@all +@connection +subscribe "
                                    "+sentinel|get-master-addr-by-name &+switch-master",
                                    "user default off"});
  Address address =
      Through({sentinel.port()}, "?sentinel_username=bob&sentinel_password=sentinel-canary");
  address.user = "ann";
  address.password = "master-canary";
  EXPECT_EQ(PortBehind(address), server.port());

  address.password = "wrong-canary";
  const ConnectError at_master = ErrorOf(address);
  EXPECT_EQ(at_master.state, State::kWrongPassword);
  EXPECT_THAT(Message(at_master.status),
              AllOf(HasSubstr("mymaster at 127.0.0.1:"), HasSubstr("AUTH: WRONGPASS"),
                    Not(HasSubstr("canary"))));

  address.sentinels[0].password = "wrong-canary";
  const ConnectError at_sentinel = ErrorOf(address);
  EXPECT_EQ(at_sentinel.state, State::kWrongPassword);
  EXPECT_THAT(Message(at_sentinel.status),
              AllOf(HasSubstr("sentinel 127.0.0.1:"), HasSubstr("AUTH: WRONGPASS"),
                    Not(HasSubstr("canary"))));
}

TEST_F(SentinelTest, ClientAndSubscriberFollowAFailoverAfterACrash) {
  Pair pair;
  testing::Sentinel sentinel(pair.master.port());
  ASSERT_TRUE(sentinel.WaitForReplicas(1));
  const Address address = Through({sentinel.port()});
  StateLog states;
  Client client(address, states.Listen());
  Listening listening(address);
  ASSERT_TRUE(states.WaitFor(State::kReady));
  ASSERT_TRUE(listening.WaitForLife(1));
  ASSERT_TRUE(client.Ask({"SET", "key", "old"}).ok());

  pair.master.Kill();
  ASSERT_TRUE(states.WaitFor(State::kLost));
  ASSERT_TRUE(listening.WaitForDeath());
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  ASSERT_TRUE(listening.WaitForLife(2));
  // Sentinel lets the new master drop its clients, those too that have come already.
  if (!client.Ask({"SET", "key", "new"}).ok()) {
    ASSERT_TRUE(states.WaitFor(State::kReady, 3));
    EXPECT_TRUE(client.Ask({"SET", "key", "new"}).ok());
  }
  testing::RedisPeer peer(pair.replica.port());
  EXPECT_EQ(peer.Command({"GET", "key"}), "new");
  EXPECT_EQ(peer.Command({"PUBLISH", "tasks", "heard"}), 1);
  ASSERT_TRUE(listening.WaitForMessages(1));
}

TEST_F(SentinelTest, ClientAndSubscriberFollowAFailoverByOrder) {
  Pair pair;
  testing::Sentinel sentinel(pair.master.port());
  ASSERT_TRUE(sentinel.WaitForReplicas(1));
  const Address address = Through({sentinel.port()});
  StateLog states;
  Client client(address, states.Listen());
  Listening listening(address);
  ASSERT_TRUE(states.WaitFor(State::kReady));
  ASSERT_TRUE(listening.WaitForLife(1));

  sentinel.FailOver();
  ASSERT_TRUE(sentinel.WaitForAnotherMasterThan(pair.master.port()));
  // The old master knows nothing yet; both leave it at the sentinel's word.
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_EQ(states.Reason(State::kLost), "the master has moved");
  ASSERT_TRUE(listening.WaitForLife(2));
  EXPECT_EQ(listening.deaths().front(), "the master has moved");
  EXPECT_TRUE(client.Ask({"SET", "key", "1"}).ok());
  testing::RedisPeer peer(pair.replica.port());
  EXPECT_EQ(peer.Command({"GET", "key"}), "1");
  EXPECT_EQ(peer.Command({"PUBLISH", "tasks", "x"}), 1);
  EXPECT_TRUE(listening.WaitForMessages(1));
}

}  // namespace
}  // namespace flowmesh::redis
