// A client of one MCP server: connects when first needed, and again when the server has died.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "executors/mcp/connection.h"

namespace flowmesh::mcp {

struct ToolInfo {
  std::string name;
  std::string description;
  Json input_schema;
};

struct ToolResult {
  std::string text;  // of all its parts; what is no text is named with its size
  bool is_error = false;
};

// Several threads may use one at once. Errors begin with the server's name and hold no secret of
// the settings.
class Client {
 public:
  explicit Client(ServerSettings settings) : settings_(std::move(settings)) {}

  // The tools, which are asked for each time. Errors as of CallTool.
  absl::StatusOr<std::vector<ToolInfo>> ListTools(const CallLimits& limits)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Not tried again by itself when the server dies meanwhile, for the call may have had an effect;
  // the next one starts it anew. ResourceExhausted: it has died too often in a row. Others as of
  // Connection::Request; also DeadlineExceeded by the settings' timeout, in
  // which a start does not count.
  absl::StatusOr<ToolResult> CallTool(const std::string& name, const Json& arguments,
                                      const CallLimits& limits) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // One request, on a connection that was made or is.
  absl::StatusOr<Json> Request(const std::string& method, const Json& params,
                               const CallLimits& limits);
  absl::StatusOr<std::shared_ptr<Connection>> Connect(const CallLimits& limits)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<Connection>> Start(const CallLimits& limits) const;
  // Until no other thread starts the server.
  absl::Status AwaitStart(const CallLimits& limits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<std::vector<ToolInfo>> ReadTools(const CallLimits& limits);

  const ServerSettings settings_;
  absl::Mutex mutex_;
  bool is_starting_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Connection> connection_ ABSL_GUARDED_BY(mutex_);
  // Since an answer came, without those that a caller's limits ended.
  int starts_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace flowmesh::mcp
