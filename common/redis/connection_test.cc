#include "common/redis/connection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/test_listener.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using ::testing::HasSubstr;

Address AddressOf(const std::string& url) { return ParseRedisUrl(url).value(); }
Address Loopback(int port) { return AddressOf(absl::StrCat("redis://127.0.0.1:", port)); }

ConnectError ErrorOf(const Address& address, absl::Duration timeout = absl::Seconds(10)) {
  ConnectError error;
  EXPECT_EQ(Connection::Open(address, timeout, error), nullptr);
  EXPECT_EQ(error.status.code(), absl::StatusCode::kUnavailable);
  return error;
}

TEST(StateTest, ErrorsThatTellOfTheServer) {
  EXPECT_EQ(StateOfError("NOAUTH Authentication required."), State::kNoAuth);
  EXPECT_EQ(StateOfError("WRONGPASS invalid username-password pair"), State::kWrongPassword);
  EXPECT_EQ(StateOfError("NOPERM this user has no permissions"), State::kNoPermission);
  EXPECT_EQ(StateOfError("LOADING Redis is loading the dataset in memory"), State::kLoading);
  EXPECT_EQ(StateOfError("READONLY You can't write against a read only replica."),
            State::kReadOnly);
  EXPECT_EQ(StateOfError("MASTERDOWN Link with MASTER is down"), State::kMasterDown);
  for (const char* own :
       {"", "ERR syntax error", "WRONGTYPE Operation", "LOADINGX", "ERR NOAUTH"}) {
    EXPECT_EQ(StateOfError(own), std::nullopt) << own;
  }
}

TEST(StateTest, HasNames) {
  EXPECT_EQ(ToText(State::kConnecting), "connecting");
  EXPECT_EQ(ToText(State::kReady), "ready");
  EXPECT_EQ(ToText(State::kLost), "lost");
  EXPECT_EQ(ToText(State::kNoAuth), "no_auth");
  EXPECT_EQ(ToText(State::kWrongPassword), "wrong_password");
  EXPECT_EQ(ToText(State::kNoPermission), "no_permission");
  EXPECT_EQ(ToText(State::kLoading), "loading");
  EXPECT_EQ(ToText(State::kReadOnly), "read_only");
  EXPECT_EQ(ToText(State::kMasterDown), "master_down");
}

TEST(ReconnectPauseTest, DoublesFromATenthOfASecondToFiveWithJitter) {
  ReconnectPause pause;
  std::vector<absl::Duration> drawn;
  for (int round = 0; round < 2; ++round) {
    for (double seconds : {0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0}) {
      drawn.push_back(pause.Next());
      EXPECT_GE(drawn.back(), absl::Seconds(seconds / 2));
      EXPECT_LE(drawn.back(), absl::Seconds(seconds));
    }
    pause.Reset();
  }
  bool differ = false;
  for (size_t i = 0; i < drawn.size() / 2; ++i) differ |= drawn[i] != drawn[i + drawn.size() / 2];
  EXPECT_TRUE(differ);
}

TEST(PollMillisecondsTest, RoundsUpAndIsBounded) {
  EXPECT_EQ(PollMilliseconds(absl::Milliseconds(5)), 6);
  EXPECT_EQ(PollMilliseconds(absl::Microseconds(10)), 1);
  EXPECT_EQ(PollMilliseconds(absl::Seconds(-3)), 0);
  EXPECT_EQ(PollMilliseconds(-absl::InfiniteDuration()), 0);
  EXPECT_EQ(PollMilliseconds(absl::InfiniteDuration()), 60001);
}

TEST(ConnectionTest, NobodyThere) {
  int port = 0;
  { port = TestListener().port(); }
  const ConnectError refused = ErrorOf(Loopback(port));
  EXPECT_EQ(refused.state, State::kLost);
  EXPECT_THAT(Message(refused.status), HasSubstr("Connection refused"));
  EXPECT_THAT(Message(ErrorOf(AddressOf("unix:///nowhere/redis.sock")).status),
              HasSubstr("No such file"));
  EXPECT_THAT(Message(ErrorOf(AddressOf("unix:///" + std::string(200, 'x'))).status),
              HasSubstr("the socket's path is too long"));
}

TEST(ConnectionTest, ASilentServerIsGivenUpInTime) {
  const TestListener silent;
  const absl::Duration start = Clock::Real().Monotonic();
  const ConnectError error = ErrorOf(Loopback(silent.port()), absl::Milliseconds(200));
  const absl::Duration took = Clock::Real().Monotonic() - start;
  EXPECT_THAT(Message(error.status), HasSubstr("no answer in time"));
  EXPECT_GE(took, absl::Milliseconds(200));
  EXPECT_LE(took, absl::Seconds(5));
}

TEST(ConnectionTest, WhatSpeaksNoRedisIsRefused) {
  TestListener web;
  std::thread answer([&] {
    const UniqueFd peer = web.Accept();
    const std::string text = "HTTP/1.1 400 Bad Request\r\n\r\n";
    EXPECT_EQ(::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    char rest[256];
    while (::recv(peer.get(), rest, sizeof(rest), 0) > 0) {
    }
  });
  EXPECT_THAT(Message(ErrorOf(Loopback(web.port())).status), HasSubstr("Protocol error"));
  answer.join();
}

TEST(ConnectionTest, AServerThatHangsUp) {
  TestListener rude;
  std::thread answer([&] {
    const UniqueFd peer = rude.Accept();
    char ping[256];
    EXPECT_GT(::recv(peer.get(), ping, sizeof(ping), 0), 0);
  });
  EXPECT_THAT(Message(ErrorOf(Loopback(rude.port())).status),
              HasSubstr("the server closed the connection"));
  answer.join();
}

TEST(ConnectionTest, TheDatabaseMustExist) {
  const testing::RedisServer server;
  Address address = AddressOf(server.url());
  address.database = 99;
  const ConnectError error = ErrorOf(address);
  EXPECT_EQ(error.state, State::kLost);
  EXPECT_THAT(Message(error.status), HasSubstr("SELECT: ERR DB index is out of range"));
}

TEST(ConnectionTest, SaysWhyALoginFailedWithoutTheSecret) {
  const testing::RedisServer server;
  testing::RedisPeer peer(server.port());
  peer.Command({"ACL", "SETUSER", "ann", "on", ">right", "+@all", "-ping"});
  Address address = AddressOf(server.url());
  address.user = "ann";
  address.password = "canary";
  const ConnectError wrong = ErrorOf(address);
  EXPECT_EQ(wrong.state, State::kWrongPassword);
  EXPECT_THAT(Message(wrong.status), HasSubstr("AUTH: WRONGPASS"));
  EXPECT_THAT(Message(wrong.status), ::testing::Not(HasSubstr("canary")));

  address.password = "right";
  const ConnectError forbidden = ErrorOf(address);
  EXPECT_EQ(forbidden.state, State::kNoPermission);
  EXPECT_THAT(Message(forbidden.status), HasSubstr("PING: NOPERM"));

  peer.Command({"CONFIG", "SET", "requirepass", "right"});
  const ConnectError missing = ErrorOf(AddressOf(server.url()));
  EXPECT_EQ(missing.state, State::kNoAuth);
  EXPECT_THAT(Message(missing.status), HasSubstr("PING: NOAUTH"));
}

}  // namespace
}  // namespace flowmesh::redis
