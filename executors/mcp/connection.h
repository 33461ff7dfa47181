// One connection to an MCP server, by either transport.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::mcp {

// Longest message of a server.
inline constexpr size_t kMaxMessageBytes = 8u << 20;

// A program to start, or a URL, each of which may hold secrets.
struct ServerSettings {
  std::string name;  // for errors
  std::string command;
  std::vector<std::string> args;
  // Of the program, which gets PATH, HOME, USER, LANG and TMPDIR of ours beside them and nothing
  // else.
  std::map<std::string, std::string> env;
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  absl::Duration timeout = absl::Seconds(60);  // of one call

  // What of all these may be secret.
  std::vector<std::string> Secrets() const;
};

struct CallLimits {
  absl::Duration deadline = absl::InfiniteDuration();  // on Clock::Real().Monotonic()
  std::function<bool()> is_stopped;                    // polled while waiting
};

// Cancelled or DeadlineExceeded once a limit is reached.
absl::Status CheckLimits(const CallLimits& limits);

// Several threads may use one at once. No error holds a secret of the settings.
class Connection {
 public:
  virtual ~Connection() = default;

  // The `result` that the server answers. InvalidArgument: the server's error, in its words.
  // DeadlineExceeded, Cancelled: by the limits; the server was told, unless of its start, which
  // the protocol has no cancel for. Unavailable, DataLoss: the
  // server is gone or says what is no answer. NotFound: it has forgotten the session.
  virtual absl::StatusOr<Json> Request(const std::string& method, const Json& params,
                                       const CallLimits& limits) = 0;
  virtual absl::Status Notify(const std::string& method, const Json& params,
                              const CallLimits& limits) = 0;

  // From now on every message names this version of the protocol, where the transport does.
  virtual void SetProtocolVersion(const std::string& version) = 0;

  // Whether no further request can succeed.
  virtual bool is_closed() = 0;
};

// Starts the program. The process must ignore SIGPIPE. NotFound: there is none.
absl::StatusOr<std::unique_ptr<Connection>> StartStdio(const ServerSettings& settings);
std::unique_ptr<Connection> MakeHttp(const ServerSettings& settings);

}  // namespace flowmesh::mcp
