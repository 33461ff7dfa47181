#include "common/redis/connection.h"

#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/redis/sentinel.h"
#include "common/strings.h"

namespace flowmesh::redis {
namespace {

constexpr size_t kReadBytes = 64 << 10;

struct FreeSsl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
struct FreeReader {
  void operator()(redisReader* reader) const { redisReaderFree(reader); }
};
struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

absl::Status Broken(std::string_view why) { return absl::UnavailableError(ToAbsl(why)); }
absl::Status BrokenByErrno(const char* what) {
  return Broken(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::Duration Now() { return Clock::Real().Monotonic(); }

// Waits for `events` on a socket until `deadline`.
absl::Status Wait(int fd, short events, absl::Duration deadline) {
  pollfd wait{fd, events, 0};
  while (true) {
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return Broken("no answer in time");
    const int ready = ::poll(&wait, 1, PollMilliseconds(left));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return BrokenByErrno("poll");
  }
}

absl::StatusOr<UniqueFd> ConnectTo(const sockaddr* address, socklen_t size, int family,
                                   absl::Duration deadline) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return BrokenByErrno("socket");
  if (::connect(fd.get(), address, size) != 0) {
    if (errno != EINPROGRESS) return BrokenByErrno("cannot connect");
    RETURN_IF_ERROR(Wait(fd.get(), POLLOUT, deadline));
    int error = 0;
    socklen_t length = sizeof(error);
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return Broken(absl::StrCat("cannot connect: ", std::strerror(error)));
  }
  return fd;
}

absl::StatusOr<UniqueFd> ConnectUnix(const std::string& path, absl::Duration deadline) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Broken("the socket's path is too long");
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return ConnectTo(reinterpret_cast<const sockaddr*>(&address), sizeof(address), AF_UNIX, deadline);
}

absl::StatusOr<UniqueFd> ConnectTcp(const Address& address, absl::Duration deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code =
      ::getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
  if (code != 0) return Broken(absl::StrCat("cannot resolve: ", ::gai_strerror(code)));
  const std::unique_ptr<addrinfo, FreeAddresses> list(found);
  absl::Status last = Broken("no address");
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    absl::StatusOr<UniqueFd> fd =
        ConnectTo(one->ai_addr, one->ai_addrlen, one->ai_family, deadline);
    if (!fd.ok()) {
      last = fd.status();
      continue;
    }
    const int on = 1;
    ::setsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
  }
  return last;
}

Reply ToReply(const redisReply& raw) {
  Reply reply;
  switch (raw.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      reply.kind = Reply::Kind::kText;
      reply.text.assign(raw.str, raw.len);
      break;
    case REDIS_REPLY_ERROR:
      reply.kind = Reply::Kind::kError;
      reply.text.assign(raw.str, raw.len);
      break;
    case REDIS_REPLY_INTEGER:
      reply.kind = Reply::Kind::kInteger;
      reply.integer = raw.integer;
      break;
    case REDIS_REPLY_ARRAY:
      reply.kind = Reply::Kind::kArray;
      for (size_t i = 0; i < raw.elements; ++i) reply.elements.push_back(ToReply(*raw.element[i]));
      break;
    default:
      break;
  }
  return reply;
}

class SocketConnection final : public Connection {
 public:
  explicit SocketConnection(UniqueFd fd) : fd_(std::move(fd)), reader_(redisReaderCreate()) {}

  absl::Status StartTls(const Address& address, absl::Duration deadline);
  absl::Status Greet(const Address& address, absl::Duration deadline, State& state);

  int fd() const override { return fd_.get(); }
  absl::StatusOr<size_t> Write(std::string_view bytes) override;
  absl::Status Read() override;
  absl::StatusOr<std::optional<Reply>> Next() override;

 private:
  // Bytes moved; 0: would block. `result` is what SSL_read or SSL_write returned.
  absl::StatusOr<size_t> TlsResult(int result);

  UniqueFd fd_;
  std::unique_ptr<redisReader, FreeReader> reader_;
  std::unique_ptr<SSL_CTX, FreeSsl> context_;
  std::unique_ptr<SSL, FreeSsl> ssl_;  // null: plain
};

std::string TlsErrorText() {
  char text[256] = "connection closed";
  if (const unsigned long code = ERR_get_error(); code != 0) {
    ERR_error_string_n(code, text, sizeof(text));
  }
  ERR_clear_error();
  return text;
}

// Whom to trust and who we are.
absl::Status LoadTlsFiles(const Address& address, SSL_CTX* context) {
  const auto failed = [](std::string_view what, const std::string& file) {
    return Broken(absl::StrCat("TLS: ", ToAbsl(what), " ", file, ": ", TlsErrorText()));
  };
  const std::string& ca = address.tls_ca_file;
  if (ca.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (SSL_CTX_load_verify_locations(context, ca.c_str(), nullptr) != 1) {
    return failed("cannot use the certificates in", ca);
  }
  const std::string& certificate = address.tls_certificate_file;
  if (certificate.empty()) return absl::OkStatus();
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1) {
    return failed("cannot use the certificate in", certificate);
  }
  const std::string& key = address.tls_key_file.empty() ? certificate : address.tls_key_file;
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return failed("cannot use the key in", key);
  }
  return absl::OkStatus();
}

absl::Status SocketConnection::StartTls(const Address& address, absl::Duration deadline) {
  context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX_set_min_proto_version(context_.get(), TLS1_2_VERSION);
  RETURN_IF_ERROR(LoadTlsFiles(address, context_.get()));
  SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context_.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  ssl_.reset(SSL_new(context_.get()));
  SSL_set_fd(ssl_.get(), fd_.get());
  // The certificate must name the host, or the address when that is what we were given.
  const char* host = address.host.c_str();
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_.get()), host) != 1) {
    SSL_set_tlsext_host_name(ssl_.get(), host);
    SSL_set1_host(ssl_.get(), host);
  }
  while (true) {
    const int result = SSL_connect(ssl_.get());
    if (result == 1) return absl::OkStatus();
    const int error = SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      RETURN_IF_ERROR(Annotate(
          Wait(fd_.get(), error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline), "TLS"));
      continue;
    }
    const long verified = SSL_get_verify_result(ssl_.get());
    if (verified != X509_V_OK) {
      return Broken(absl::StrCat("TLS: the server's certificate is not accepted: ",
                                 X509_verify_cert_error_string(verified)));
    }
    return Broken(absl::StrCat("TLS: ", TlsErrorText()));
  }
}

absl::StatusOr<size_t> SocketConnection::TlsResult(int result) {
  if (result > 0) return static_cast<size_t>(result);
  const int error = SSL_get_error(ssl_.get(), result);
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return size_t{0};
  return Broken(absl::StrCat("TLS: ", TlsErrorText()));
}

absl::StatusOr<size_t> SocketConnection::Write(std::string_view bytes) {
  if (ssl_) {
    const size_t size = std::min<size_t>(bytes.size(), std::numeric_limits<int>::max());
    return TlsResult(SSL_write(ssl_.get(), bytes.data(), static_cast<int>(size)));
  }
  const ssize_t sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<size_t>(sent);
  if (errno == EAGAIN || errno == EINTR) return size_t{0};
  return BrokenByErrno("cannot send");
}

absl::Status SocketConnection::Read() {
  char buffer[kReadBytes];
  while (true) {
    size_t size = 0;
    if (ssl_) {
      ASSIGN_OR_RETURN(size, TlsResult(SSL_read(ssl_.get(), buffer, sizeof(buffer))));
    } else {
      const ssize_t got = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
      if (got == 0) return Broken("the server closed the connection");
      if (got < 0 && errno != EAGAIN && errno != EINTR) return BrokenByErrno("cannot receive");
      size = got < 0 ? 0 : static_cast<size_t>(got);
    }
    if (size == 0) return absl::OkStatus();
    if (redisReaderFeed(reader_.get(), buffer, size) != REDIS_OK) {
      return Broken(reader_->errstr);
    }
    if (size < sizeof(buffer) && !ssl_) return absl::OkStatus();
  }
}

absl::StatusOr<std::optional<Reply>> SocketConnection::Next() {
  void* raw = nullptr;
  if (redisReaderGetReply(reader_.get(), &raw) != REDIS_OK) return Broken(reader_->errstr);
  if (raw == nullptr) return std::optional<Reply>();
  auto* reply = static_cast<redisReply*>(raw);
  std::optional<Reply> value = ToReply(*reply);
  freeReplyObject(reply);
  return value;
}

absl::Status SocketConnection::Greet(const Address& address, absl::Duration deadline,
                                     State& state) {
  std::vector<Command> commands;
  const absl::StatusOr<std::string> password = PasswordOf(address);
  if (!password.ok()) {
    state = State::kNoAuth;
    return password.status();
  }
  // A user without a password logs in too: `nopass` users take any.
  if (!address.user.empty() || !password->empty()) {
    commands.push_back(address.user.empty() ? Command{"AUTH", *password}
                                            : Command{"AUTH", address.user, *password});
  }
  if (address.database != 0) commands.push_back({"SELECT", absl::StrCat(address.database)});
  commands.push_back({"PING"});
  for (const Command& command : commands) {
    ASSIGN_OR_RETURN(const Reply reply, Ask(command, deadline));
    if (!reply.is_error()) continue;
    state = StateOfError(reply.text).value_or(State::kLost);
    return Broken(absl::StrCat(command[0], ": ", reply.text));
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view ToText(State state) {
  switch (state) {
    case State::kConnecting:
      return "connecting";
    case State::kReady:
      return "ready";
    case State::kLost:
      return "lost";
    case State::kNoAuth:
      return "no_auth";
    case State::kWrongPassword:
      return "wrong_password";
    case State::kNoPermission:
      return "no_permission";
    case State::kLoading:
      return "loading";
    case State::kReadOnly:
      return "read_only";
    case State::kMasterDown:
      break;
  }
  return "master_down";
}

std::optional<State> StateOfError(std::string_view error) {
  const std::string_view word = error.substr(0, error.find(' '));
  if (word == "NOAUTH") return State::kNoAuth;
  if (word == "WRONGPASS") return State::kWrongPassword;
  if (word == "NOPERM") return State::kNoPermission;
  if (word == "LOADING") return State::kLoading;
  if (word == "READONLY") return State::kReadOnly;
  if (word == "MASTERDOWN") return State::kMasterDown;
  return std::nullopt;
}

int PollMilliseconds(absl::Duration left) {
  constexpr int64_t kLongest = 60 * 1000;
  return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(left), -1, kLongest)) + 1;
}

std::unique_ptr<Connection> Connection::Open(const Address& address, absl::Duration timeout,
                                             ConnectError& error) {
  if (!address.sentinels.empty()) return OpenMaster(address, timeout, error);
  const absl::Duration deadline = Now() + timeout;
  error = {};
  absl::StatusOr<UniqueFd> fd = address.unix_path.empty()
                                    ? ConnectTcp(address, deadline)
                                    : ConnectUnix(address.unix_path, deadline);
  error.status = fd.status();
  if (!fd.ok()) return nullptr;
  auto connection = std::make_unique<SocketConnection>(*std::move(fd));
  if (address.tls) error.status = connection->StartTls(address, deadline);
  if (error.status.ok()) error.status = connection->Greet(address, deadline, error.state);
  if (!error.status.ok()) return nullptr;
  return connection;
}

absl::StatusOr<Reply> Connection::Ask(const Command& command, absl::Duration deadline) {
  std::string bytes;
  AppendCommand(command, bytes);
  std::string_view left = bytes;
  while (!left.empty()) {
    ASSIGN_OR_RETURN(const size_t sent, Write(left));
    left.remove_prefix(sent);
    if (!left.empty()) RETURN_IF_ERROR(Wait(fd(), POLLOUT, deadline));
  }
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Reply> reply, Next());
    if (reply) return *std::move(reply);
    RETURN_IF_ERROR(Wait(fd(), POLLIN, deadline));
    RETURN_IF_ERROR(Read());
  }
}

absl::Duration ReconnectPause::Next() {
  constexpr absl::Duration kFirst = absl::Milliseconds(100);
  constexpr absl::Duration kLongest = absl::Seconds(5);
  pause_ = pause_ == absl::ZeroDuration() ? kFirst : std::min(pause_ * 2, kLongest);
  static thread_local std::mt19937 random{std::random_device{}()};
  return pause_ * std::uniform_real_distribution<double>(0.5, 1.0)(random);
}

}  // namespace flowmesh::redis
