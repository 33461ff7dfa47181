#include "common/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace flowmesh {
namespace {

using ::testing::StartsWith;

std::string Target(std::string_view text) {
  const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(text);
  return endpoint.ok() ? endpoint->Target() : Message(endpoint.status());
}

TEST(EndpointTest, HostAndPort) {
  const Endpoint endpoint = ParseEndpoint(" 127.0.0.1:50062 ").value();
  EXPECT_FALSE(endpoint.is_unix());
  EXPECT_EQ(endpoint.host, "127.0.0.1");
  EXPECT_EQ(endpoint.port, 50062);
  EXPECT_EQ(endpoint.Target(), "127.0.0.1:50062");
  EXPECT_EQ(Target("localhost:0"), "localhost:0");
  EXPECT_EQ(ParseEndpoint("[::1]:65535").value().host, "::1");
  EXPECT_EQ(Target("[::1]:65535"), "[::1]:65535");
}

TEST(EndpointTest, UnixPaths) {
  for (const char* text : {"unix:/run/e0.sock", "unix:///run/e0.sock", " unix:/run/e0.sock\n"}) {
    const Endpoint endpoint = ParseEndpoint(text).value();
    EXPECT_TRUE(endpoint.is_unix()) << text;
    EXPECT_EQ(endpoint.unix_path, "/run/e0.sock") << text;
    EXPECT_EQ(endpoint.Target(), "unix:/run/e0.sock") << text;
  }
  EXPECT_EQ(Target("unix:/" + std::string(106, 'x')), "unix:/" + std::string(106, 'x'));
  EXPECT_EQ(Target("unix:/" + std::string(107, 'x')),
            "expected a socket path of at most 107 bytes, got 108");
}

TEST(EndpointTest, WhatIsNoAddressIsShown) {
  for (const char* bad :
       {"", "host", ":5", "host:", "host:port", "host:-1", "host:65536", "::1:5", "[]:5", "[::1]",
        "unix:", "unix:relative", "http://host:5", "a host:5", "unix:/a\nb"}) {
    EXPECT_EQ(Target(bad), std::string("expected host:port or unix:/path, got \"") + bad + "\"");
  }
}

TEST(EndpointTest, ASecondServerOnASocketIsRefused) {
  TempDir temp;
  const Endpoint endpoint = ParseEndpoint("unix:" + (temp / "s").string()).value();
  ASSERT_TRUE(WriteFileAtomically(temp / "s", "left by a server that died").ok());
  absl::StatusOr<UniqueFd> first = LockEndpoint(endpoint);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->valid());
  EXPECT_FALSE(std::filesystem::exists(temp / "s")) << "the stale socket is removed";

  ASSERT_TRUE(WriteFileAtomically(temp / "s", "the first server's").ok());
  const absl::Status second = LockEndpoint(endpoint).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(second));
  EXPECT_EQ(Message(second), "another process listens on " + endpoint.Target());
  EXPECT_TRUE(std::filesystem::exists(temp / "s")) << "a live socket stays";

  first->Reset();
  EXPECT_TRUE(LockEndpoint(endpoint).ok());
}

TEST(EndpointTest, ALockThatCannotBeMadeIsNamed) {
  TempDir temp;
  const Endpoint endpoint = ParseEndpoint("unix:" + (temp / "none/s").string()).value();
  EXPECT_THAT(Message(LockEndpoint(endpoint).status()),
              StartsWith("cannot open " + (temp / "none/s.lock").string()));
}

TEST(EndpointTest, TcpNeedsNoLock) {
  const absl::StatusOr<UniqueFd> lock = LockEndpoint(ParseEndpoint("127.0.0.1:5").value());
  ASSERT_TRUE(lock.ok());
  EXPECT_FALSE(lock->valid());
}

TEST(EndpointTest, AFreePortCanBeBound) {
  const absl::StatusOr<int> port = FreeLoopbackPort();
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_GT(*port, 0);
  EXPECT_LE(*port, 65535);
}

}  // namespace
}  // namespace flowmesh
