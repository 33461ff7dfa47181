// Finds a master that may move: Redis Sentinel.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "common/redis/address.h"
#include "common/redis/connection.h"
#include "common/redis/subscriber.h"

namespace flowmesh::redis {

// Connection::Open for an address with sentinels. Each of them is asked for the master until a
// server that one of them names says by ROLE that it is a master; so a sentinel that is down, deaf
// or behind the times costs its share of `timeout` and no more. `error` is of the last that was
// asked, with its address in the text.
std::unique_ptr<Connection> OpenMaster(const Address& address, absl::Duration timeout,
                                       ConnectError& error);

// Listens to each of an address's sentinels for the news of a failover. What was the master may
// live on for many seconds, taking writes that will be lost and telling its subscribers nothing.
class MasterWatch {
 public:
  // `on_moved` runs on threads of this object, once for each sentinel that has switched. It does
  // nothing for an address without sentinels.
  MasterWatch(const Address& address, std::function<void()> on_moved);

 private:
  const std::function<void()> on_moved_;
  std::vector<std::unique_ptr<Subscriber>> listeners_;
};

}  // namespace flowmesh::redis
