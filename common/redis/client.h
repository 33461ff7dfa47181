// Commands to a Redis server over a connection that mends itself.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/files.h"
#include "common/redis/address.h"
#include "common/redis/connection.h"
#include "common/redis/reply.h"
#include "common/redis/sentinel.h"

namespace flowmesh::redis {

struct ClientOptions {
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration command_timeout = absl::Seconds(5);  // a server that is silent longer is lost
  absl::Duration idle_ping = absl::Seconds(10);
  size_t max_waiting = 100000;  // posts without an answer
  // From the I/O thread, whenever the state changed before the end; `reason` is empty for kReady.
  std::function<void(State state, const std::string& reason)> on_state;
};

// Thread-safe. One thread of its own connects, and connects again after a pause (ReconnectPause)
// whenever the connection broke, the server turned it away or the address's sentinels tell of a
// failover; it sends what was posted and hands out the replies.
class Client {
 public:
  using Done = std::function<void(const Replies& replies)>;

  Client(Address address, ClientOptions options);
  // What is still waiting ends with Unavailable first; an attempt to connect that is under way is
  // waited for.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Sends `commands` after everything that was posted before. `done` (may be null) gets one reply
  // per command, error replies included, in the order of the posts. Unavailable: there is no
  // connection (`done` is then called before this returns), or it broke (the commands may have been
  // executed). ResourceExhausted: max_waiting. Never blocks; `done` runs on the I/O thread and must
  // not block either. No commands: `done` gets no replies, at once.
  void Post(const std::vector<Command>& commands, Done done = nullptr);

  // The same, waited for. DeadlineExceeded: no answer within `timeout`.
  Replies Run(const std::vector<Command>& commands, absl::Duration timeout = absl::Seconds(5));

  // One command; Internal with the server's words when it was refused.
  absl::StatusOr<Reply> Ask(const Command& command, absl::Duration timeout = absl::Seconds(5));

  State state() const;
  uint64_t reconnects() const;  // connections that were lost after they had been ready

 private:
  struct Waiting {
    size_t replies = 0;     // how many belong to it
    absl::Duration posted;  // monotonic
    Done done;
    std::vector<Reply> got;
  };

  void Loop();
  // Serves one connection until it breaks or this stops; says why.
  absl::Status Serve(Connection& connection, State& state);
  absl::Status Send(Connection& connection, std::string& unsent);
  // Hands out the replies that are there. `state` tells of a server that turned us away.
  absl::Status Receive(Connection& connection, State& state);
  void FailAll(const absl::Status& why);
  void SetState(State state, const std::string& reason);
  void Wake() const;
  void TakeWakeUp() const;
  void OnMoved();
  bool Pause(absl::Duration duration);  // false when stopping; short when the master moved

  const Address address_;
  const ClientOptions options_;
  UniqueFd wake_;  // an eventfd

  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kConnecting;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool moved_ ABSL_GUARDED_BY(mutex_) = false;  // the master, since the connection was opened
  std::string outgoing_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t reconnects_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<MasterWatch> watch_;
  std::thread thread_;
};

}  // namespace flowmesh::redis
