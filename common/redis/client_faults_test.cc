// What a client does when its server, or the connection to it, is not well.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <ctime>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/redis/client.h"
#include "common/redis/state_log.h"
#include "common/test_listener.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::Not;

Address AddressOf(const testing::RedisServer& server) {
  return ParseRedisUrl(server.url()).value();
}

// The outcome of commands that may take long.
absl::Status Outcome(Client& client, const std::vector<Command>& commands) {
  return client.Run(commands, absl::Seconds(20)).status();
}

bool Answers(Client& client) { return client.Ask({"ECHO", "x"}).value_or(Reply{}).text == "x"; }

TEST(ClientFaultsTest, WithoutAServerEverythingFailsAtOnce) {
  StateLog states;
  Address address;
  address.host = "127.0.0.1";
  address.port = FreeLoopbackPort().value();
  Client client(address, states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kLost));
  EXPECT_THAT(states.Reason(State::kLost), HasSubstr("refused"));
  bool called = false;
  client.Post({{"PING"}},
              [&](const Replies& replies) { called = absl::IsUnavailable(replies.status()); });
  EXPECT_TRUE(called);  // before Post returned
  EXPECT_EQ(client.Ask({"PING"}).status(), absl::UnavailableError("no connection to Redis"));
  EXPECT_EQ(client.reconnects(), 0u);  // there never was a connection to lose
}

TEST(ClientFaultsTest, AConnectionThatTheServerKillsIsMadeAgain) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  StateLog states;
  Client client(AddressOf(server), states.Listen());
  for (size_t life = 1; life <= 3; ++life) {
    ASSERT_TRUE(states.WaitFor(State::kReady, life));
    ASSERT_TRUE(Answers(client));
    // What waits for an answer when the connection breaks is told so.
    absl::Notification told;
    absl::Status outcome;
    client.Post({{"PING"}, {"BLPOP", "nothing", "0"}}, [&](const Replies& replies) {
      outcome = replies.status();
      told.Notify();
    });
    ASSERT_TRUE(Eventually([&] {
      return peer.Command({"INFO", "clients"}).get<std::string>().find("blocked_clients:1") !=
             std::string::npos;
    }));
    EXPECT_EQ(peer.Command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}), 1);
    ASSERT_TRUE(told.WaitForNotificationWithTimeout(absl::Seconds(20)));
    EXPECT_EQ(outcome, absl::UnavailableError("the server closed the connection"));
    EXPECT_EQ(client.reconnects(), life);
  }
  ASSERT_TRUE(states.WaitFor(State::kReady, 4));
  EXPECT_TRUE(Answers(client));
}

// A command that comes in while the connection breaks wakes nobody any more.
TEST(ClientFaultsTest, AWakeUpLeftOverFromAConnectionDoesNotSpinInThePauses) {
  TestListener listener;
  std::thread server([&] {
    char command[256];
    const auto answer = [&](std::string_view reply) {
      const UniqueFd peer = listener.Accept();
      for (const std::string_view part : {std::string_view("+PONG\r\n"), reply}) {
        EXPECT_GT(::recv(peer.get(), command, sizeof(command), 0), 0);
        EXPECT_EQ(::send(peer.get(), part.data(), part.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(part.size()));
      }
      // The client breaks it off.
      while (::recv(peer.get(), command, sizeof(command), 0) > 0) {
      }
    };
    answer("+x\r\nno Redis\r\n");
    for (int i = 0; i < 4; ++i) (void)listener.Accept();  // tries that end in pauses
  });
  Address address;
  address.host = "127.0.0.1";
  address.port = listener.port();
  StateLog states;
  Client client(address, states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady));
  const std::clock_t cpu = std::clock();
  client.Post({{"ECHO", "x"}}, [&](const Replies&) { client.Post({{"PING"}}); });
  server.join();
  // Of pauses of 1.5 s in all, less the jitter.
  EXPECT_LT(std::clock() - cpu, CLOCKS_PER_SEC / 5);
}

TEST(ClientFaultsTest, ARestartedServerIsFoundAgain) {
  testing::RedisServer server;
  StateLog states;
  Client client(AddressOf(server), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady));
  ASSERT_TRUE(client.Ask({"SET", "key", "old"}).ok());
  server.Kill();
  ASSERT_TRUE(states.WaitFor(State::kLost));
  EXPECT_EQ(client.Ask({"GET", "key"}).status().code(), absl::StatusCode::kUnavailable);
  server.Start();
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_EQ(client.Ask({"GET", "key"}).value().kind, Reply::Kind::kNil);
  EXPECT_EQ(client.reconnects(), 1u);
}

TEST(ClientFaultsTest, ADeafServerIsNoticedByTheCommandThatWaits) {
  testing::RedisServer server;
  StateLog states;
  // A ping interval below the limit must not be taken for signs of life.
  ClientOptions options;
  options.command_timeout = absl::Milliseconds(300);
  options.idle_ping = absl::Milliseconds(20);
  options.connect_timeout = absl::Milliseconds(300);
  Client client(AddressOf(server), states.Listen(options));
  ASSERT_TRUE(states.WaitFor(State::kReady));
  server.Signal(SIGSTOP);
  const absl::Duration start = Clock::Real().Monotonic();
  // It may have been lost already: then this fails at once, and the reason is the same.
  EXPECT_EQ(Outcome(client, {{"PING"}}).code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(Clock::Real().Monotonic() - start, absl::Seconds(10));
  ASSERT_TRUE(states.WaitFor(State::kLost));
  EXPECT_EQ(states.Reason(State::kLost), "the server does not answer");
  server.Signal(SIGCONT);
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_TRUE(Answers(client));
}

TEST(ClientFaultsTest, ADeafServerIsNoticedWhileNothingIsAsked) {
  testing::RedisServer server;
  StateLog states;
  ClientOptions options;
  options.command_timeout = absl::Milliseconds(200);
  options.idle_ping = absl::Milliseconds(50);
  Client client(AddressOf(server), states.Listen(options));
  ASSERT_TRUE(states.WaitFor(State::kReady));
  server.Signal(SIGSTOP);
  ASSERT_TRUE(states.WaitFor(State::kLost));
  EXPECT_EQ(states.Reason(State::kLost), "the server does not answer");
  // It ends at once, also while it tries to connect to the deaf.
  server.Signal(SIGCONT);
}

TEST(ClientFaultsTest, AnIdleConnectionIsKeptAliveByPings) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  StateLog states;
  ClientOptions options;
  options.command_timeout = absl::Seconds(20);
  options.idle_ping = absl::Milliseconds(10);
  Client client(AddressOf(server), states.Listen(options));
  ASSERT_TRUE(states.WaitFor(State::kReady));
  peer.Command({"CONFIG", "RESETSTAT"});
  EXPECT_TRUE(Eventually([&] { return peer.Calls("ping") >= 5; }));
  EXPECT_EQ(client.state(), State::kReady);
  EXPECT_EQ(client.reconnects(), 0u);
}

// Twelve commands of 0.1 s each take longer than the limit, but never fall silent for so long.
TEST(ClientFaultsTest, ALongBatchThatAnswersBitByBitIsNotDeaf) {
  const testing::RedisServer server;
  StateLog states;
  ClientOptions options;
  options.command_timeout = absl::Seconds(1);
  Client client(AddressOf(server), states.Listen(options));
  ASSERT_TRUE(states.WaitFor(State::kReady));
  const absl::Duration start = Clock::Real().Monotonic();
  const std::clock_t cpu = std::clock();
  EXPECT_TRUE(Outcome(client, std::vector<Command>(12, {"BLPOP", "nothing", "0.1"})).ok());
  EXPECT_GT(Clock::Real().Monotonic() - start, options.command_timeout);
  // And nobody polls in a tight loop meanwhile.
  EXPECT_LT(std::clock() - cpu, CLOCKS_PER_SEC / 4);
}

TEST(ClientFaultsTest, PostsWithoutAnswersAreBounded) {
  testing::RedisServer server;
  StateLog states;
  ClientOptions options;
  options.max_waiting = 3;
  options.command_timeout = absl::Seconds(60);
  Client client(AddressOf(server), states.Listen(options));
  ASSERT_TRUE(states.WaitFor(State::kReady));
  server.Signal(SIGSTOP);
  absl::Notification answered;
  for (int i = 0; i < 2; ++i) client.Post({{"RPUSH", "list", "x"}});
  client.Post({{"LLEN", "list"}}, [&](const Replies& replies) {
    EXPECT_EQ(replies.value().at(0).integer, 2);
    answered.Notify();
  });
  const absl::Status refused = Outcome(client, {{"RPUSH", "list", "y"}});
  EXPECT_EQ(refused, absl::ResourceExhaustedError("too many commands wait for Redis"));
  server.Signal(SIGCONT);
  ASSERT_TRUE(answered.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_TRUE(Answers(client));
}

TEST(ClientFaultsTest, APasswordThatIsRotatedLaterLetsItIn) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command({"ACL", "SETUSER", "ann", "on", ">other", "~*", "+@all"});
  Address address = AddressOf(server);
  address.user = "ann";
  address.password = "canary";
  StateLog states;
  Client client(address, states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kWrongPassword));
  EXPECT_THAT(states.Reason(State::kWrongPassword), HasSubstr("WRONGPASS"));
  EXPECT_THAT(states.Reason(State::kWrongPassword), Not(HasSubstr("canary")));
  EXPECT_EQ(client.state(), State::kWrongPassword);
  EXPECT_EQ(client.Ask({"PING"}).status().code(), absl::StatusCode::kUnavailable);

  peer.Command({"ACL", "SETUSER", "ann", ">canary"});
  ASSERT_TRUE(states.WaitFor(State::kReady));
  EXPECT_TRUE(Answers(client));

  // A user that is deleted loses its connections, and comes back with the user.
  peer.Command({"ACL", "DELUSER", "ann"});
  ASSERT_TRUE(states.WaitFor(State::kWrongPassword, 2));
  peer.Command({"ACL", "SETUSER", "ann", "on", ">canary", "~*", "+@all"});
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_TRUE(Answers(client));
}

TEST(ClientFaultsTest, ARotatedPasswordIsReadFromItsFile) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  const TempDir dir;
  Address address = AddressOf(server);
  address.user = "ann";
  address.password_file = dir / "password";
  peer.Command({"ACL", "SETUSER", "ann", "on", ">first", "~*", "+@all"});
  StateLog states;
  Client client(address, states.Listen());
  // No file is no password; the reason says which.
  ASSERT_TRUE(states.WaitFor(State::kNoAuth));
  EXPECT_THAT(states.Reason(State::kNoAuth), HasSubstr(address.password_file));
  ASSERT_TRUE(WriteFileAtomically(address.password_file, "first\n").ok());
  ASSERT_TRUE(states.WaitFor(State::kReady));

  // Rotated on the server first: the old one is refused until the file follows.
  peer.Command({"ACL", "SETUSER", "ann", "resetpass", ">second"});
  peer.Command({"CLIENT", "KILL", "USER", "ann"});
  ASSERT_TRUE(states.WaitFor(State::kWrongPassword));
  EXPECT_THAT(states.Reason(State::kWrongPassword), HasSubstr("WRONGPASS"));
  EXPECT_THAT(states.Reason(State::kWrongPassword), Not(HasSubstr("first")));
  ASSERT_TRUE(WriteFileAtomically(address.password_file, "second\n").ok());
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_TRUE(Answers(client));
}

TEST(ClientFaultsTest, APasswordThatIsMissingIsToldApartFromAWrongOne) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command({"CONFIG", "SET", "requirepass", "canary"});
  StateLog states;
  Client client(AddressOf(server), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kNoAuth));
  EXPECT_THAT(states.Reason(State::kNoAuth), HasSubstr("PING: NOAUTH"));
  EXPECT_FALSE(states.Told(State::kWrongPassword));
}

TEST(ClientFaultsTest, AMissingPermissionIsTheCommandsOwn) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command({"ACL", "SETUSER", "ann", "on", ">p", "~mine:*", "+@all", "-flushall"});
  Address address = AddressOf(server);
  address.user = "ann";
  address.password = "p";
  StateLog states;
  Client client(address, states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady));
  EXPECT_THAT(Message(client.Ask({"FLUSHALL"}).status()), HasSubstr("NOPERM"));
  EXPECT_THAT(Message(client.Ask({"SET", "yours", "1"}).status()), HasSubstr("NOPERM"));
  EXPECT_TRUE(client.Ask({"SET", "mine:1", "1"}).ok());
  EXPECT_THAT(
      Message(TransactionStatus(client.Run(Transaction({{"SET", "mine:1", "2"}, {"FLUSHALL"}})))),
      HasSubstr("NOPERM"));
  EXPECT_EQ(peer.Command({"GET", "mine:1"}), "1");
  EXPECT_EQ(client.state(), State::kReady);
  EXPECT_EQ(client.reconnects(), 0u);
}

TEST(ClientFaultsTest, WithoutThePermissionToPingItWaitsForIt) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command({"ACL", "SETUSER", "ann", "on", ">p", "~*", "+@all", "-ping"});
  Address address = AddressOf(server);
  address.user = "ann";
  address.password = "p";
  StateLog states;
  Client client(address, states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kNoPermission));
  EXPECT_THAT(states.Reason(State::kNoPermission), HasSubstr("PING: NOPERM"));
  peer.Command({"ACL", "SETUSER", "ann", "+ping"});
  ASSERT_TRUE(states.WaitFor(State::kReady));
}

// A failover: the server becomes a replica, and later the master again.
TEST(ClientFaultsTest, AReplicaIsLeftUntilItIsAMasterAgain) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  StateLog states;
  Client client(AddressOf(server), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady));
  peer.Command({"REPLICAOF", "127.0.0.1", absl::StrCat(FreeLoopbackPort().value())});
  EXPECT_THAT(Message(client.Ask({"SET", "key", "1"}).status()), HasSubstr("READONLY"));
  ASSERT_TRUE(states.WaitFor(State::kReadOnly));
  EXPECT_THAT(states.Reason(State::kReadOnly), HasSubstr("READONLY"));

  peer.Command({"CONFIG", "SET", "replica-serve-stale-data", "no"});
  peer.Command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
  ASSERT_TRUE(states.WaitFor(State::kMasterDown));

  peer.Command({"REPLICAOF", "NO", "ONE"});
  EXPECT_TRUE(Eventually([&] { return client.Ask({"SET", "key", "2"}).ok(); }));
  EXPECT_EQ(peer.Command({"GET", "key"}), "2");
}

TEST(ClientFaultsTest, AServerThatLoadsItsDataIsWaitedFor) {
  // Half a millisecond per key, and a look at its clients in between.
  testing::RedisServer server({"--key-load-delay", "500", "--rdbcompression", "no",
                               "--loading-process-events-interval-bytes", "1024"});
  {
    testing::RedisPeer peer(server.port());
    peer.Command({"EVAL", "for i = 1, 2000 do redis.call('SET', 'key:' .. i, i) end", "0"});
    ASSERT_EQ(peer.Command({"SAVE"}), "OK");
  }
  server.Kill();
  server.Start();
  StateLog states;
  Client client(AddressOf(server), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady));
  EXPECT_THAT(states.Reason(State::kLoading), HasSubstr("LOADING"));
  EXPECT_EQ(client.Ask({"DBSIZE"}).value().integer, 2000);
}

}  // namespace
}  // namespace flowmesh::redis
