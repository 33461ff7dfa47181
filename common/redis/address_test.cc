#include "common/redis/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::redis {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

Address Parse(const char* url) {
  const absl::StatusOr<Address> address = ParseRedisUrl(url);
  EXPECT_TRUE(address.ok()) << url << ": " << address.status();
  return address.value_or(Address{});
}

TEST(ParseRedisUrlTest, HostPortAndDatabase) {
  const Address plain = Parse("redis://localhost:6379/0");
  EXPECT_EQ(plain.host, "localhost");
  EXPECT_EQ(plain.port, 6379);
  EXPECT_EQ(plain.database, 0);
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.unix_path + plain.user + plain.password, "");
  EXPECT_EQ(Parse("redis://h").port, 6379);
  EXPECT_EQ(Parse("redis://h/").database, 0);
  EXPECT_EQ(Parse("redis://h:7000/15").database, 15);
  EXPECT_EQ(Parse("redis://h:7000?db=2").database, 2);
  EXPECT_EQ(Parse("redis://h/1?timeout=3&db=2").database, 2);
  EXPECT_EQ(Parse("redis://").host, "localhost");
  EXPECT_EQ(Parse("redis://:7000").port, 7000);
  EXPECT_EQ(Parse("  redis://h:65535 ").port, 65535);
}

TEST(ParseRedisUrlTest, SchemesInAnyCaseAndTls) {
  EXPECT_TRUE(Parse("rediss://h:7000").tls);
  EXPECT_TRUE(Parse("REDISS://h").tls);
  EXPECT_EQ(Parse("rediss://h").port, 6379);
  EXPECT_FALSE(Parse("Redis://h").tls);
}

TEST(ParseRedisUrlTest, IPv6StandsInBrackets) {
  EXPECT_EQ(Parse("redis://[::1]:7000/2").host, "::1");
  EXPECT_EQ(Parse("redis://[::1]:7000/2").port, 7000);
  EXPECT_EQ(Parse("redis://[fe80::2]").host, "fe80::2");
  EXPECT_EQ(Parse("redis://u:p@[::1]").port, 6379);
}

TEST(ParseRedisUrlTest, UserAndPasswordAreDecoded) {
  EXPECT_EQ(Parse("redis://:secret@h").password, "secret");
  EXPECT_EQ(Parse("redis://:secret@h").user, "");
  EXPECT_EQ(Parse("redis://ann@h").user, "ann");
  EXPECT_EQ(Parse("redis://ann@h").password, "");
  EXPECT_EQ(Parse("redis://a%6En:p%40ss%2fw%25@h").user, "ann");
  EXPECT_EQ(Parse("redis://a%6En:p%40ss%2fw%25@h").password, "p@ss/w%");
  EXPECT_EQ(Parse("redis://:%00%ff@h").password, std::string("\0\xff", 2));
  EXPECT_EQ(Parse("redis://ann:with:colons@h:1").password, "with:colons");
  // What people paste without escaping it.
  EXPECT_EQ(Parse("redis://ann:p@ss/w?rd@h:1/3").password, "p@ss/w?rd");
  EXPECT_EQ(Parse("redis://ann:p@ss/w?rd@h:1/3").host, "h");
  EXPECT_EQ(Parse("redis://ann:p@ss/w?rd@h:1/3").database, 3);
}

TEST(ParseRedisUrlTest, UnixSockets) {
  EXPECT_EQ(Parse("unix:///run/redis.sock").unix_path, "/run/redis.sock");
  EXPECT_EQ(Parse("unix:///run/redis.sock?db=4").database, 4);
  EXPECT_EQ(Parse("unix:///a%20b.sock").unix_path, "/a b.sock");
  const Address full = Parse("unix://ann:p%40ss@/run/redis.sock?db=4");
  EXPECT_EQ(full.user, "ann");
  EXPECT_EQ(full.password, "p@ss");
  EXPECT_EQ(full.unix_path, "/run/redis.sock");
  EXPECT_EQ(Parse("unix:///run/user@host/redis.sock").unix_path, "/run/user@host/redis.sock");
  EXPECT_EQ(Parse("unix:///run/user@host/redis.sock").user, "");
  EXPECT_EQ(Parse("unix://u:p@/run/user@host.sock").unix_path, "/run/user@host.sock");
}

TEST(ParseRedisUrlTest, ErrorsSayWhatWasExpectedAndKeepTheSecret) {
  const std::pair<const char*, const char*> wrong[] = {
      {"", "no scheme"},
      {"localhost:6379", "no scheme"},
      {"http://u:canary@h", "the scheme \"http\""},
      {"redis://u:canary@h:0", "a bad port"},
      {"redis://u:canary@h:65536", "a bad port"},
      {"redis://u:canary@h:x", "a bad port"},
      {"redis://u:canary@h:", "a bad port"},
      // An @ was forgotten: what stands where the port should is the password.
      {"redis://u:canary", "a bad port"},
      {"redis://u:canary@[::1", "a bad IPv6 address"},
      {"redis://u:canary@[::1]7000", "a bad port"},
      {"redis://u:canary@h/x", "a database that is no number from 0 on"},
      {"redis://u:canary@h/-1", "a database that is no number from 0 on"},
      {"redis://u:canary@h?db=x", "a database that is no number from 0 on"},
      {"redis://u:canary%4@h", "a bad percent escape"},
      {"redis://u:canary%zz@h", "a bad percent escape"},
      {"redis://u:canary%-1@h", "a bad percent escape"},
      {"redis://u:canary% 1@h", "a bad percent escape"},
      {"redis://u:canary%0x@h", "a bad percent escape"},
      {"unix://redis.sock", "a socket path that is not absolute"},
      {"unix://u:canary@redis.sock", "a socket path that is not absolute"},
      {"unix://", "a socket path that is not absolute"},
  };
  for (const auto& [url, what] : wrong) {
    const absl::Status status = ParseRedisUrl(url).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << url;
    EXPECT_THAT(Message(status),
                AllOf(StartsWith("expected redis[s]://"), HasSubstr(std::string("got ") + what),
                      Not(HasSubstr("canary"))))
        << url;
  }
}

TEST(AddressTest, IsShownWithoutItsPassword) {
  EXPECT_EQ(Parse("redis://ann:canary@h:7000").ToString(), "h:7000");
  EXPECT_EQ(Parse("redis://ann:canary@h/3").ToString(), "h:6379 db 3");
  EXPECT_EQ(Parse("unix://ann:canary@/r.sock?db=1").ToString(), "/r.sock db 1");
}

}  // namespace
}  // namespace flowmesh::redis
