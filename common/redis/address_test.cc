#include "common/redis/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files.h"
#include "common/strings.h"

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

TEST(ParseRedisUrlTest, SentinelsAndTheNameOfTheirMaster) {
  const Address one = Parse("redis+sentinel://h/mymaster");
  ASSERT_EQ(one.sentinels.size(), 1u);
  EXPECT_EQ(one.sentinels[0].host, "h");
  EXPECT_EQ(one.sentinels[0].port, 26379);
  EXPECT_EQ(one.master, "mymaster");
  EXPECT_EQ(one.database, 0);
  EXPECT_FALSE(one.tls);

  const Address full = Parse(
      "redis+sentinel://ann:p%40ss@a:1,[::1]:2, c/my%2fmaster/3?sentinel_username=bob&"
      "sentinel_password=s%26x");
  ASSERT_EQ(full.sentinels.size(), 3u);
  EXPECT_EQ(full.sentinels[0].ToString(), "a:1");
  EXPECT_EQ(full.sentinels[1].host, "::1");
  EXPECT_EQ(full.sentinels[1].port, 2);
  EXPECT_EQ(full.sentinels[2].ToString(), "c:26379");
  EXPECT_EQ(full.master, "my/master");
  EXPECT_EQ(full.user + " " + full.password, "ann p@ss");
  EXPECT_EQ(full.database, 3);
  for (const Address& sentinel : full.sentinels) {
    EXPECT_EQ(sentinel.user + " " + sentinel.password, "bob s&x");
    EXPECT_EQ(sentinel.database, 0);
  }
  // The master's login is not theirs.
  EXPECT_EQ(Parse("redis+sentinel://ann:p@h/m").sentinels[0].user, "");
  EXPECT_EQ(Parse("redis+sentinel://ann:p@h/m").sentinels[0].password, "");
  EXPECT_EQ(Parse("redis+sentinel://h/m?db=4").database, 4);
}

TEST(ParseRedisUrlTest, FilesForTlsAreTheSentinelsToo) {
  const Address address =
      Parse("rediss+sentinel://h/m?ssl_ca_certs=/a%20b.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem");
  EXPECT_TRUE(address.tls);
  EXPECT_TRUE(address.sentinels[0].tls);
  for (const Address& one : {address, address.sentinels[0]}) {
    EXPECT_EQ(one.tls_ca_file, "/a b.pem");
    EXPECT_EQ(one.tls_certificate_file, "/c.pem");
    EXPECT_EQ(one.tls_key_file, "/k.pem");
  }
  EXPECT_EQ(Parse("rediss://h?ssl_certfile=/both.pem").tls_key_file, "");
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
      {"redis+sentinel://u:canary@h", "no name of a master"},
      {"redis+sentinel://u:canary@h/", "no name of a master"},
      {"redis+sentinel://u:canary@h//1", "no name of a master"},
      {"redis+sentinel://u:canary@/m", "no sentinel"},
      {"redis+sentinel://u:canary@h:1,g:x/m", "a bad port"},
      {"redis+sentinel://u:canary@h/m/x", "a database that is no number from 0 on"},
      {"redis+sentinel://h/m?sentinel_password=canary%4", "a bad percent escape"},
      {"sentinel://u:canary@h/m", "the scheme \"sentinel\""},
      {"redis://u:canary@h?ssl_ca_certs=/a.pem", "files for TLS with a scheme without TLS"},
      {"rediss://u:canary@h?ssl_keyfile=/k.pem", "ssl_keyfile without ssl_certfile"},
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
  EXPECT_EQ(Parse("redis+sentinel://ann:canary@a:1,b/m/2?sentinel_password=canary").ToString(),
            "m of a:1,b:26379 db 2");
}

TEST(PasswordOfTest, ComesFromTheFileAsItIsNow) {
  const TempDir dir;
  Address address = Parse("redis://:direct@h");
  EXPECT_EQ(PasswordOf(address).value(), "direct");
  address.password_file = dir / "password";
  EXPECT_EQ(PasswordOf(address).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(PasswordOf(address).status()), HasSubstr(address.password_file));
  for (const char* text : {"first", "second\n", "third\r\n"}) {
    ASSERT_TRUE(WriteFileAtomically(address.password_file, text).ok());
    EXPECT_EQ(PasswordOf(address).value(), Trim(text));
  }
  ASSERT_TRUE(WriteFileAtomically(address.password_file, " spaces stay \n").ok());
  EXPECT_EQ(PasswordOf(address).value(), " spaces stay ");
  ASSERT_TRUE(WriteFileAtomically(address.password_file, "\n").ok());
  EXPECT_THAT(Message(PasswordOf(address).status()), HasSubstr("no password in it"));
}

}  // namespace
}  // namespace flowmesh::redis
