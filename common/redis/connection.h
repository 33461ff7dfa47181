// One connection to a Redis server, over TCP, TLS or a unix socket: bytes out, replies in. Client
// and Subscriber drive it from their threads; nothing else needs it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "common/redis/address.h"
#include "common/redis/reply.h"
#include "common/status.h"

namespace flowmesh::redis {

// What a server thinks of us.
enum class State {
  kConnecting,
  kReady,
  kLost,           // no connection: refused, broken, silent
  kNoAuth,         // NOAUTH: a password is missing
  kWrongPassword,  // WRONGPASS: user or password are wrong
  kNoPermission,   // NOPERM: an ACL rule is missing
  kLoading,        // it still reads its data
  kReadOnly,       // a replica
  kMasterDown,     // a replica without its master
};

// `ready`, `lost`, `no_auth`, ...
std::string_view ToText(State state);

// The state that an error reply tells of; nothing for errors of a command's own.
std::optional<State> StateOfError(std::string_view error);

// A failure with the state that it leads to.
struct ConnectError {
  State state = State::kLost;
  absl::Status status;  // Unavailable, never with a secret
};

// Not thread-safe. The socket does not block.
class Connection {
 public:
  // Connects, logs in, selects the database and proves by PING that commands are taken; asks the
  // address's sentinels first where it has any, and proves by ROLE that the server is a master.
  // Blocks, at most `timeout` beside what the system's resolver takes. Null with `error` filled in.
  // TLS trusts the address's tls_ca_file, else the system's certificates or those of SSL_CERT_FILE;
  // it needs SIGPIPE ignored.
  static std::unique_ptr<Connection> Open(const Address& address, absl::Duration timeout,
                                          ConnectError& error);
  virtual ~Connection() = default;

  virtual int fd() const = 0;
  // Sends what the socket takes of `bytes` and returns how much that was. Unavailable: it broke.
  virtual absl::StatusOr<size_t> Write(std::string_view bytes) = 0;
  // Reads what is there. Unavailable: it broke, or the server closed it.
  virtual absl::Status Read() = 0;
  // The next whole reply of what was read. Unavailable: that is no Redis protocol.
  virtual absl::StatusOr<std::optional<Reply>> Next() = 0;

  // One command, sent and waited for until `deadline` (monotonic) while nothing else is under way.
  // Unavailable: no answer.
  absl::StatusOr<Reply> Ask(const Command& command, absl::Duration deadline);
};

// For poll(2): `left` in milliseconds, rounded up; a long wait comes back after a minute.
int PollMilliseconds(absl::Duration left);

// The pauses between tries to connect: 0.1 s doubling to 5 s, each drawn from its upper half, so
// that a fleet does not come back at one instant. Reset by success only.
class ReconnectPause {
 public:
  absl::Duration Next();
  void Reset() { pause_ = absl::ZeroDuration(); }

 private:
  absl::Duration pause_;
};

}  // namespace flowmesh::redis
