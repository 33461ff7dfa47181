// Named configurations of agents: YAML files, of which some come with the program and others lie in
// a folder of the user's (AGENT_CONFIG_DIR). `configurations/README.md` describes their fields.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/env.h"
#include "common/status.h"
#include "executors/agent/endpoint.h"
#include "executors/agent/tools/catalogue.h"
#include "executors/agent/tools/mcp_tools.h"

namespace flowmesh::agent {

inline constexpr char kConfigDirVariable[] = "AGENT_CONFIG_DIR";

struct AgentSettings {
  std::string description;  // what a planner is told of it
  std::string instructions;
  int max_turns = 20;
  ModelOverrides model;
  std::vector<ToolChoice> tools;
  std::vector<McpServer> mcp_servers;
};

struct TeamSettings {
  AgentSettings planner, reporter;
  std::vector<std::pair<std::string, AgentSettings>> workers;  // by name; not empty
  int max_steps = 8;
};

struct AgentConfiguration {
  std::string name;
  std::string source;   // the file, or `built in`
  AgentSettings agent;  // unless it is a team
  std::optional<TeamSettings> team;
  bool allow_private_addresses = false;  // in URLs that a model chooses
  size_t max_tool_answer = 32u << 10;    // bytes
  // What came from the environment, and what of MCP servers' settings may be secret.
  std::vector<std::string> secrets;
};

// InvalidArgument: no such name (lists those that there are), or a file that is wrong (names the
// file and the field). `${NAME}` in the values of a server's `env` and `headers` stands for the
// environment variable.
absl::StatusOr<AgentConfiguration> LoadConfiguration(const std::string& name, const EnvLookup& env);

// The YAML of those that come with the program, by name.
const std::map<std::string, std::string>& ShippedConfigurations();

}  // namespace flowmesh::agent
