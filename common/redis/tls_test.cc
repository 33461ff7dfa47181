// TLS against redis-server, with certificates that openssl makes for each test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "common/redis/client.h"
#include "common/redis/state_log.h"
#include "common/redis/subscriber.h"
#include "common/test_certificate.h"
#include "common/test_listener.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using ::testing::HasSubstr;

// redis-server with TLS on a port beside the plain one.
class TlsServer {
 public:
  // `clients`: whose certificates are let in; null: nobody is asked for one.
  explicit TlsServer(const std::string& alternatives, const Certificate* clients = nullptr)
      : certificate_(alternatives),
        tls_port_(FreeLoopbackPort().value()),
        server_({"--tls-port", absl::StrCat(tls_port_), "--tls-cert-file", certificate_.file(),
                 "--tls-key-file", certificate_.key(), "--tls-ca-cert-file",
                 clients == nullptr ? certificate_.file() : clients->file(), "--tls-auth-clients",
                 clients == nullptr ? "no" : "yes"}) {}

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

TEST_F(TlsTest, TheTrustedCertificatesMayStandInTheUrl) {
  TlsServer server("IP:127.0.0.1");
  Address address = server.address();
  EXPECT_FALSE(Connect(address).ok());  // the system does not know it
  address.tls_ca_file = server.certificate().file();
  EXPECT_TRUE(Connect(address).ok());
  address.tls_ca_file = server.certificate().key();
  EXPECT_THAT(Message(Connect(address)),
              HasSubstr("TLS: cannot use the certificates in " + address.tls_ca_file));
}

TEST_F(TlsTest, AClientShowsItsCertificate) {
  const Certificate ours("DNS:worker.example"), unknown("DNS:worker.example");
  TlsServer server("IP:127.0.0.1", &ours);
  Address address =
      ParseRedisUrl(absl::StrCat("rediss://127.0.0.1:", server.address().port,
                                 "?ssl_ca_certs=", server.certificate().file(),
                                 "&ssl_certfile=", ours.file(), "&ssl_keyfile=", ours.key()))
          .value();
  StateLog states;
  {
    Client client(address, states.Listen());
    ASSERT_TRUE(states.WaitFor(State::kReady)) << states.Reason(State::kLost);
    EXPECT_EQ(client.Ask({"ECHO", "let in"}).value().text, "let in");
  }
  Address nobody = address;
  nobody.tls_certificate_file = nobody.tls_key_file = "";
  EXPECT_FALSE(Connect(nobody).ok());
  Address stranger = address;
  stranger.tls_certificate_file = unknown.file();
  stranger.tls_key_file = unknown.key();
  EXPECT_FALSE(Connect(stranger).ok());
}

TEST_F(TlsTest, FilesThatCannotBeUsedAreNamed) {
  const Certificate ours("DNS:a"), other("DNS:b");
  TlsServer server("IP:127.0.0.1");
  Address address = server.address();
  address.tls_ca_file = server.certificate().file();
  address.tls_certificate_file = "/nowhere/certificate.pem";
  EXPECT_THAT(Message(Connect(address)),
              HasSubstr("TLS: cannot use the certificate in /nowhere/certificate.pem"));
  address.tls_certificate_file = ours.file();
  EXPECT_THAT(Message(Connect(address)), HasSubstr("TLS: cannot use the key in " + ours.file()));
  address.tls_key_file = other.key();
  EXPECT_THAT(Message(Connect(address)), HasSubstr("TLS: cannot use the key in " + other.key()));
  // Key and certificate in one file.
  const TempDir dir;
  address.tls_certificate_file = dir / "both.pem";
  address.tls_key_file = "";
  ASSERT_TRUE(WriteFileAtomically(address.tls_certificate_file,
                                  ReadFile(ours.file()).value() + ReadFile(ours.key()).value())
                  .ok());
  EXPECT_TRUE(Connect(address).ok());
}

// One handshake of a server that keeps the name which the client asks for (SNI).
std::string NameAskedFor(const std::string& host) {
  const Certificate certificate("DNS:localhost,IP:127.0.0.1");
  std::string name = "none";
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()),
                                                                  &SSL_CTX_free);
  SSL_CTX_use_certificate_chain_file(context.get(), certificate.file().c_str());
  SSL_CTX_use_PrivateKey_file(context.get(), certificate.key().c_str(), SSL_FILETYPE_PEM);
  const auto keep = +[](SSL* ssl, int*, void* out) {
    const char* asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (asked != nullptr) *static_cast<std::string*>(out) = asked;
    return SSL_TLSEXT_ERR_OK;
  };
  SSL_CTX_set_tlsext_servername_callback(context.get(), keep);
  SSL_CTX_set_tlsext_servername_arg(context.get(), &name);
  TestListener listener;
  std::thread server([&] {
    const UniqueFd peer = listener.Accept();
    const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), &SSL_free);
    SSL_set_fd(ssl.get(), peer.get());
    EXPECT_EQ(SSL_accept(ssl.get()), 1);
  });
  Address address = ParseRedisUrl(absl::StrCat("rediss://", host, ":", listener.port())).value();
  address.tls_ca_file = certificate.file();
  ConnectError error;
  EXPECT_EQ(Connection::Open(address, absl::Seconds(20), error), nullptr);  // it says nothing more
  server.join();
  return name;
}

TEST_F(TlsTest, TheHostIsAskedForByName) {
  EXPECT_EQ(NameAskedFor("localhost"), "localhost");
  EXPECT_EQ(NameAskedFor("127.0.0.1"), "none");  // an address is no name
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
