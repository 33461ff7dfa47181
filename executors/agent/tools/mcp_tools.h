// The tools of MCP servers as an agent's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "executors/agent/tools/catalogue.h"
#include "executors/mcp/connection.h"

namespace flowmesh::agent {

// A server of tools that speaks MCP, and which of them the agent may use.
struct McpServer {
  mcp::ServerSettings settings;
  std::vector<std::string> tools;  // empty: all
};

// Starts or asks the server for its tools, and gives those that the configuration wants, named
// `<server>_<tool>`. They hold the server, which ends with the last of them; one that has died is
// started again by the next call. InvalidArgument: a tool that it has not. Others: the server's, by
// its name.
absl::StatusOr<Tools> MakeMcpTools(const McpServer& server,
                                   const std::function<bool()>& is_stopped);

}  // namespace flowmesh::agent
