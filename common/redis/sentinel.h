// Finds a master that may move: Redis Sentinel.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "common/redis/address.h"
#include "common/redis/connection.h"

namespace flowmesh::redis {

// Connection::Open for an address with sentinels. Each of them is asked for the master until a
// server that one of them names says by ROLE that it is a master; so a sentinel that is down, deaf
// or behind the times costs its share of `timeout` and no more. `error` is of the last that was
// asked, with its address in the text.
std::unique_ptr<Connection> OpenMaster(const Address& address, absl::Duration timeout,
                                       ConnectError& error);

}  // namespace flowmesh::redis
