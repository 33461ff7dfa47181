// TLS against redis-server, with certificates that openssl makes for each test.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "common/redis/client.h"
#include "common/redis/state_log.h"
#include "common/redis/subscriber.h"
#include "common/subprocess.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using ::testing::HasSubstr;

// A key and a certificate of its own for the names in `alternatives`.
class Certificate {
 public:
  explicit Certificate(const std::string& alternatives) {
    SubprocessOptions options;
    options.argv = {"openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-noenc",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=test",
                    "-addext",
                    "subjectAltName=" + alternatives,
                    "-keyout",
                    key(),
                    "-out",
                    file()};
    const UniqueFd log(::open((dir_ / "log").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    options.stdout_fd = log.get();
    options.stderr_fd = log.get();
    const std::optional<ExitStatus> made =
        Subprocess::Start(options).value().Wait(absl::Seconds(30));
    EXPECT_TRUE(made && made->ok()) << ReadFile(dir_ / "log").value_or("");
  }

  std::string key() const { return dir_ / "key.pem"; }
  std::string file() const { return dir_ / "certificate.pem"; }

 private:
  TempDir dir_;
};

// redis-server with TLS on a port beside the plain one.
class TlsServer {
 public:
  explicit TlsServer(const std::string& alternatives)
      : certificate_(alternatives),
        tls_port_(FreeLoopbackPort().value()),
        server_({"--tls-port", absl::StrCat(tls_port_), "--tls-cert-file", certificate_.file(),
                 "--tls-key-file", certificate_.key(), "--tls-ca-cert-file", certificate_.file(),
                 "--tls-auth-clients", "no"}) {}

  const Certificate& certificate() const { return certificate_; }
  testing::RedisServer& plain() { return server_; }
  Address address(const std::string& host = "127.0.0.1") const {
    return ParseRedisUrl(absl::StrCat("rediss://", host, ":", tls_port_)).value();
  }

 private:
  Certificate certificate_;
  int tls_port_;
  testing::RedisServer server_;
};

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override { previous_ = ::signal(SIGPIPE, SIG_IGN); }
  void TearDown() override {
    ::unsetenv("SSL_CERT_FILE");
    ::signal(SIGPIPE, previous_);
  }

  static void Trust(const Certificate& certificate) {
    ::setenv("SSL_CERT_FILE", certificate.file().c_str(), 1);
  }
  static absl::Status Connect(const Address& address, absl::Duration timeout = absl::Seconds(20)) {
    ConnectError error;
    const auto connection = Connection::Open(address, timeout, error);
    EXPECT_EQ(connection != nullptr, error.status.ok());
    return error.status;
  }

 private:
  void (*previous_)(int) = nullptr;
};

TEST_F(TlsTest, CommandsAndLargeValues) {
  TlsServer server("IP:127.0.0.1");
  Trust(server.certificate());
  StateLog states;
  Client client(server.address(), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady)) << states.Reason(State::kLost);
  std::string large(10 << 20, ' ');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 13);
  const Replies replies = client.Run({{"SET", "k", large}, {"GET", "k"}}, absl::Seconds(60));
  ASSERT_TRUE(replies.ok()) << replies.status();
  EXPECT_TRUE((*replies)[1].text == large);
  EXPECT_EQ(client.Ask({"ECHO", "still here"}).value().text, "still here");
}

TEST_F(TlsTest, ABrokenConnectionIsMadeAgain) {
  TlsServer server("IP:127.0.0.1");
  Trust(server.certificate());
  StateLog states;
  Client client(server.address(), states.Listen());
  ASSERT_TRUE(states.WaitFor(State::kReady)) << states.Reason(State::kLost);
  server.plain().Kill();
  ASSERT_TRUE(states.WaitFor(State::kLost));
  server.plain().Start();
  ASSERT_TRUE(states.WaitFor(State::kReady, 2));
  EXPECT_EQ(client.Ask({"ECHO", "again"}).value().text, "again");
}

TEST_F(TlsTest, MessagesOfASubscription) {
  TlsServer server("IP:127.0.0.1");
  Trust(server.certificate());
  absl::Notification alive, got;
  std::string payload;
  const Subscriber subscriber(
      server.address(), {"tasks"}, {},
      [&](std::string_view, std::string_view text) {
        payload = text;
        got.Notify();
      },
      [&](bool is_alive, const std::string& reason) {
        EXPECT_TRUE(is_alive) << reason;
        if (is_alive) alive.Notify();
      });
  ASSERT_TRUE(alive.WaitForNotificationWithTimeout(absl::Seconds(20)));
  const std::string large(3 << 20, 'm');
  testing::RedisPeer peer(server.plain().port());
  EXPECT_EQ(peer.Command({"PUBLISH", "tasks", large}), 1);
  ASSERT_TRUE(got.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_TRUE(payload == large);
}

TEST_F(TlsTest, TheCertificateMustBeTrusted) {
  TlsServer server("IP:127.0.0.1");
  const Certificate other("IP:127.0.0.1");
  Trust(other);
  const absl::Status status = Connect(server.address());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr("TLS: the server's certificate is not accepted: self"));
}

TEST_F(TlsTest, TheCertificateMustNameTheHost) {
  TlsServer named("DNS:localhost");
  Trust(named.certificate());
  EXPECT_TRUE(Connect(named.address("localhost")).ok());
  EXPECT_THAT(Message(Connect(named.address("127.0.0.1"))), HasSubstr("IP address mismatch"));

  TlsServer foreign("DNS:elsewhere.example,IP:127.0.0.2");
  Trust(foreign.certificate());
  EXPECT_THAT(Message(Connect(foreign.address("localhost"))), HasSubstr("hostname mismatch"));
  EXPECT_THAT(Message(Connect(foreign.address("127.0.0.1"))), HasSubstr("IP address mismatch"));
}

TEST_F(TlsTest, AndThePasswordIsCheckedInside) {
  TlsServer server("IP:127.0.0.1");
  Trust(server.certificate());
  testing::RedisPeer peer(server.plain().port());
  peer.Command({"ACL", "SETUSER", "ann", "on", ">right", "+@all"});
  Address address = server.address();
  address.user = "ann";
  address.password = "right";
  EXPECT_TRUE(Connect(address).ok());
  address.password = "wrong";
  EXPECT_THAT(Message(Connect(address)), HasSubstr("WRONGPASS"));
}

TEST_F(TlsTest, APlainServerIsNoTlsServer) {
  const testing::RedisServer server;
  Address address = ParseRedisUrl(server.url()).value();
  address.tls = true;
  // It takes our greeting for the beginning of a line.
  EXPECT_THAT(Message(Connect(address, absl::Milliseconds(200))),
              HasSubstr("TLS: no answer in time"));
}

TEST_F(TlsTest, ATlsServerIsNoPlainServer) {
  const TlsServer server("IP:127.0.0.1");
  Address address = server.address();
  address.tls = false;
  EXPECT_EQ(Connect(address).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace flowmesh::redis
