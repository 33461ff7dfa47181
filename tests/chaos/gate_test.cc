#include "tests/chaos/gate.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <ctime>
#include <vector>

#include "common/clock.h"
#include "tests/integration/eventually.h"

namespace flowmesh::testing {
namespace {

using Direction = Gate::Direction;

absl::Duration Now() { return Clock::Real().Monotonic(); }

UniqueFd Socket(const Endpoint& endpoint) {
  return UniqueFd(::socket(endpoint.is_unix() ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

template <typename Call>
int WithAddress(const Endpoint& endpoint, const Call& call) {
  if (endpoint.is_unix()) {
    sockaddr_un un{};
    un.sun_family = AF_UNIX;
    endpoint.unix_path.copy(un.sun_path, sizeof(un.sun_path) - 1);
    return call(reinterpret_cast<sockaddr*>(&un), sizeof(un));
  }
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(static_cast<uint16_t>(endpoint.port));
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return call(reinterpret_cast<sockaddr*>(&in), sizeof(in));
}

// One end of a connection. Nothing waits longer than 20 s.
class Peer {
 public:
  explicit Peer(UniqueFd fd) : fd_(std::move(fd)) {
    const timeval limit{20, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  }
  explicit Peer(const Endpoint& endpoint) : Peer(Socket(endpoint)) {
    connected_ = WithAddress(endpoint, [this](sockaddr* address, socklen_t size) {
                   return ::connect(fd_.get(), address, size);
                 }) == 0;
  }

  bool connected() const { return connected_; }
  void Send(const std::string& bytes) {
    EXPECT_EQ(::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void SendEnd() { ::shutdown(fd_.get(), SHUT_WR); }
  // `size` bytes, or fewer when the connection ended before.
  std::string Receive(size_t size) {
    std::string bytes(size, '\0');
    const ssize_t got = ::recv(fd_.get(), bytes.data(), size, MSG_WAITALL);
    bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return bytes;
  }
  bool Ended() { return Receive(1).empty(); }
  bool Hears(absl::Duration within) {
    pollfd wait{fd_.get(), POLLIN, 0};
    return ::poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(within))) > 0;
  }

 private:
  UniqueFd fd_;
  bool connected_ = true;
};

// A target that listens, and the gate before it.
class GateTest : public ::testing::Test {
 protected:
  GateTest() : listener_(Socket(target())) {
    const auto bind = [this](sockaddr* address, socklen_t size) {
      return ::bind(listener_.get(), address, size);
    };
    EXPECT_EQ(WithAddress(target(), bind), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    gate_.emplace(target());
  }
  Endpoint target() const { return {.unix_path = dir_ / "target.sock"}; }
  Peer Accept() {
    return Peer(UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  Gate& gate() { return *gate_; }

  TempDir dir_;
  UniqueFd listener_;
  std::optional<Gate> gate_;
};

std::string Random(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  return bytes;
}

TEST_F(GateTest, PassesBothWaysAndTheEnds) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  const std::string large = Random(3 << 20);
  std::thread sender([&] {
    client.Send(large);
    client.SendEnd();
  });
  EXPECT_TRUE(server.Receive(large.size()) == large);
  sender.join();
  EXPECT_TRUE(server.Ended());
  // Half closed: the other half still works.
  server.Send("answer");
  EXPECT_EQ(client.Receive(6), "answer");
  server.SendEnd();
  EXPECT_TRUE(client.Ended());
  EXPECT_TRUE(Eventually([&] { return gate().connections() == 0; }));
}

TEST_F(GateTest, ListensOnAUnixSocketToo) {
  Gate unix_gate(gate().endpoint(), dir_ / "gate.sock");  // two gates in a row, of both kinds
  Peer client(unix_gate.endpoint());
  Peer server = Accept();
  client.Send("there");
  EXPECT_EQ(server.Receive(5), "there");
  server.Send("back");
  EXPECT_EQ(client.Receive(4), "back");
  unix_gate.Refuse();
  EXPECT_TRUE(client.Ended());
  EXPECT_FALSE(Peer(unix_gate.endpoint()).connected());
  unix_gate.Pass();
  EXPECT_TRUE(Peer(unix_gate.endpoint()).connected());
}

TEST_F(GateTest, DropClosesWhatIsOpenAndLetsNewOnesIn) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Drop();
  EXPECT_TRUE(client.Ended());
  EXPECT_TRUE(server.Ended());
  Peer again(gate().endpoint());
  Peer other = Accept();
  again.Send("x");
  EXPECT_EQ(other.Receive(1), "x");
}

TEST_F(GateTest, RefuseLetsNobodyInUntilPass) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Refuse();
  EXPECT_TRUE(client.Ended());
  EXPECT_TRUE(server.Ended());
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Peer(gate().endpoint()).connected());
  const int port = gate().endpoint().port;
  gate().Pass();
  EXPECT_EQ(gate().endpoint().port, port);
  EXPECT_TRUE(Peer(gate().endpoint()).connected());
}

TEST_F(GateTest, ATargetThatIsNotThereHangsUp) {
  Gate astray({.unix_path = dir_ / "nobody.sock"});
  Peer client(astray.endpoint());
  EXPECT_TRUE(client.Ended());
}

TEST_F(GateTest, DelayKeepsTheOrder) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Delay(absl::Milliseconds(400), Direction::kForward);
  const absl::Duration start = Now();
  client.Send("a");
  server.Send("quick");
  EXPECT_EQ(client.Receive(5), "quick");
  EXPECT_LT(Now() - start, absl::Milliseconds(400));
  client.Send("b");
  EXPECT_EQ(server.Receive(2), "ab");
  EXPECT_GE(Now() - start, absl::Milliseconds(400));
}

TEST_F(GateTest, BlackholeKeepsBackAndTellsNobody) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Blackhole(Direction::kForward);
  client.Send("kept");
  server.Send("passes");
  EXPECT_EQ(client.Receive(6), "passes");
  EXPECT_FALSE(server.Hears(absl::Milliseconds(50)));
  gate().Pass();
  EXPECT_EQ(server.Receive(4), "kept");

  gate().Blackhole();
  server.Send("last");
  { const Peer gone = std::move(server); }  // closed
  const std::clock_t cpu = std::clock();
  EXPECT_FALSE(client.Hears(absl::Milliseconds(100)));
  EXPECT_LT(std::clock() - cpu, CLOCKS_PER_SEC / 20);  // nobody polls in a tight loop
  // Somebody new is let in, to the same silence.
  Peer late(gate().endpoint());
  Peer partner = Accept();
  late.Send("x");
  EXPECT_FALSE(partner.Hears(absl::Milliseconds(50)));
  gate().Pass();
  EXPECT_EQ(client.Receive(4), "last");
  EXPECT_TRUE(client.Ended());
  EXPECT_EQ(partner.Receive(1), "x");
}

TEST_F(GateTest, CorruptChangesBytesOfItsDirection) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Corrupt(Direction::kBackward);
  client.Send("sound");
  EXPECT_EQ(server.Receive(5), "sound");
  server.Send("broken");
  EXPECT_EQ(client.Receive(6), static_cast<char>(~'b') + std::string("roken"));
}

TEST_F(GateTest, CutAfterLetsExactlySoManyBytesThrough) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  client.Send("before");
  EXPECT_EQ(server.Receive(6), "before");
  gate().CutAfter(70000, Direction::kForward);
  const std::string large = Random(100000);
  std::thread sender([&] { client.Send(large); });
  EXPECT_TRUE(server.Receive(large.size()) == large.substr(0, 70000));
  sender.join();
  EXPECT_TRUE(server.Ended());
  EXPECT_TRUE(client.Ended());
  // Each connection is counted by itself, and a new call counts anew.
  Peer second(gate().endpoint());
  Peer partner = Accept();
  second.Send("1234");
  EXPECT_EQ(partner.Receive(4), "1234");
  gate().CutAfter(3, Direction::kForward);
  second.Send("5678");
  EXPECT_EQ(partner.Receive(4), "567");
}

TEST_F(GateTest, ThrottleKeepsToItsRate) {
  Peer client(gate().endpoint());
  Peer server = Accept();
  gate().Throttle(1e6, Direction::kForward);
  const std::string bytes = Random(300000);
  const absl::Duration start = Now();
  std::thread sender([&] { client.Send(bytes); });
  EXPECT_TRUE(server.Receive(bytes.size()) == bytes);
  sender.join();
  EXPECT_GE(Now() - start, absl::Milliseconds(260));
  EXPECT_LT(Now() - start, absl::Seconds(3));
}

TEST_F(GateTest, OnlyPicksConnectionsByWhatTheySent) {
  Peer chosen(gate().endpoint());
  Peer chosen_server = Accept();
  Peer other(gate().endpoint());
  Peer other_server = Accept();
  chosen.Send("x SUBSCRIBE y");
  other.Send("PING");
  EXPECT_EQ(chosen_server.Receive(13).size() + other_server.Receive(4).size(), 17u);
  gate().Only("SUBSCRIBE");
  EXPECT_EQ(gate().connections(), 1u);
  gate().Blackhole();
  chosen.Send("z");
  other.Send("z");
  EXPECT_EQ(other_server.Receive(1), "z");
  EXPECT_FALSE(chosen_server.Hears(absl::Milliseconds(50)));
  // One that comes later is known by its first bytes.
  Peer late(gate().endpoint());
  Peer late_server = Accept();
  late.Send("SUBSCRIBE");
  EXPECT_EQ(late_server.Receive(9), "SUBSCRIBE");
  EXPECT_TRUE(Eventually([&] { return gate().connections() == 2; }));
  late_server.Send("confirmed");
  EXPECT_FALSE(late.Hears(absl::Milliseconds(50)));
  gate().Drop();
  EXPECT_TRUE(chosen.Ended());
  EXPECT_TRUE(late.Ended());
  other.Send("!");
  EXPECT_EQ(other_server.Receive(1), "!");
  gate().Pass();
  EXPECT_EQ(gate().connections(), 1u);
}

}  // namespace
}  // namespace flowmesh::testing
