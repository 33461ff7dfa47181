// Addresses that programs listen on and connect to: `host:port`, `[::1]:port` or `unix:/path`.
#pragma once

#include <string>
#include <string_view>

#include "common/env.h"
#include "common/files.h"
#include "common/status.h"

namespace flowmesh {

struct Endpoint {
  std::string host;       // empty for a unix socket
  int port = 0;           // 0: the system chooses (servers only)
  std::string unix_path;  // empty for TCP

  bool is_unix() const { return !unix_path.empty(); }
  // The form that gRPC takes: `unix:/path` or `host:port`.
  std::string Target() const;
};

// InvalidArgument: `expected host:port or unix:/path, got "..."`.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);

// The address that the variable `name` holds; the mistake is in env.status(). `or_off`: one of TCP,
// where `off`, which the caller has looked for, would have been right too.
Endpoint ReadEndpoint(EnvReader& env, std::string_view name, const std::string& text,
                      bool or_off = false);

// Guards a listening address against a second server: gRPC and unlink-then-bind would silently take
// a live unix socket over. Holds a locked file `<path>.lock` beside the socket and removes a stale
// socket; for TCP it does nothing. FailedPrecondition when another process holds the lock. Keep the
// result for as long as the server lives.
absl::StatusOr<UniqueFd> LockEndpoint(const Endpoint& endpoint);

// A TCP port on loopback that was free a moment ago.
absl::StatusOr<int> FreeLoopbackPort();

}  // namespace flowmesh
