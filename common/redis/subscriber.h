// Listens on channels over a connection of its own that mends itself.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "common/files.h"
#include "common/redis/address.h"
#include "common/redis/connection.h"

namespace flowmesh::redis {

struct SubscriberOptions {
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration ping_interval = absl::Seconds(10);
  absl::Duration deaf_limit = absl::Seconds(20);  // silence that ends a connection
};

class MasterWatch;

// One thread; callbacks run on it. A failover that the address's sentinels tell of ends a
// connection. A message is held in memory as a whole: what bounds it is the
// server's `proto-max-bulk-len`.
class Subscriber {
 public:
  using OnMessage = std::function<void(std::string_view channel, std::string_view payload)>;
  // True: every channel is confirmed on a live connection. False: messages are missed; `reason`
  // says why, once until it is another one.
  using OnAlive = std::function<void(bool alive, const std::string& reason)>;

  Subscriber(Address address, std::vector<std::string> channels, SubscriberOptions options,
             OnMessage on_message, OnAlive on_alive);
  ~Subscriber();  // waits for an attempt to connect that is under way
  Subscriber(const Subscriber&) = delete;
  Subscriber& operator=(const Subscriber&) = delete;

 private:
  void Loop();
  // Serves one connection; says why it ended. OK only when stopping.
  absl::Status Listen(Connection& connection);
  absl::Status Send(Connection& connection, const Command& command);
  absl::Status Handle(const Reply& reply);
  bool Pause(absl::Duration duration) const;  // false when stopping; short when the master moved
  void TellDead(const std::string& reason);

  const Address address_;
  const std::vector<std::string> channels_;
  const SubscriberOptions options_;
  const OnMessage on_message_;
  const OnAlive on_alive_;
  const UniqueFd stop_;   // an eventfd, readable once this stops
  const UniqueFd moved_;  // the same, once the master has moved
  size_t confirmed_ = 0;
  std::string told_;  // the last reason; empty while alive
  std::unique_ptr<MasterWatch> watch_;
  std::thread thread_;
};

}  // namespace flowmesh::redis
