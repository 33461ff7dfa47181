// Where a Redis server is, and how to log in (PROTOCOL.md section 11, REDIS_URL).
#pragma once

#include <string>
#include <string_view>

#include "common/status.h"

namespace flowmesh::redis {

struct Address {
  std::string host;
  int port = 6379;
  std::string unix_path;  // instead of host and port
  std::string user;
  std::string password;
  int database = 0;
  bool tls = false;

  std::string ToString() const;  // without the password
};

// `redis://` or `rediss://` (TLS) `[user][:password@]host[:port][/db]`, or
// `unix://[user:password@]/path[?db=n]`; percent escapes are decoded. InvalidArgument `expected
// ..., got ...`, without the password.
absl::StatusOr<Address> ParseRedisUrl(std::string_view url);

}  // namespace flowmesh::redis
