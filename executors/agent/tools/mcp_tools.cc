#include "executors/agent/tools/mcp_tools.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/mcp/client.h"

namespace flowmesh::agent {
namespace {

// With what endpoints take in names.
std::string NameOf(const std::string& server, const std::string& tool) {
  std::string name = absl::StrCat(server, "_", tool).substr(0, kLongestToolName);
  for (char& c : name) {
    if (!IsToolName(std::string_view(&c, 1))) c = '_';
  }
  return name;
}

// Endpoints want a map with a type, servers may give less.
Json SchemaOf(Json schema) {
  if (!schema.contains("type")) schema["type"] = "object";
  if (!schema.contains("properties")) schema["properties"] = Json::object();
  return schema;
}

std::shared_ptr<Tool> MakeMcpTool(const std::shared_ptr<mcp::Client>& client,
                                  const std::string& server, const mcp::ToolInfo& info) {
  return MakeTool(
      {.name = NameOf(server, info.name),
       .description = info.description,
       .parameters = SchemaOf(info.input_schema)},
      [client, name = info.name](const Json& arguments,
                                 const ToolContext& context) -> absl::StatusOr<std::string> {
        ASSIGN_OR_RETURN(mcp::ToolResult result,
                         client->CallTool(name, arguments, {context.deadline, context.is_stopped}));
        if (result.is_error) return absl::UnknownError(result.text);
        return std::move(result.text);
      });
}

absl::Status CheckWanted(const McpServer& server, const std::vector<mcp::ToolInfo>& infos) {
  for (const std::string& wanted : server.tools) {
    const auto has_name = [&](const mcp::ToolInfo& info) { return info.name == wanted; };
    if (std::any_of(infos.begin(), infos.end(), has_name)) continue;
    std::vector<std::string> names;
    for (const mcp::ToolInfo& info : infos) names.push_back(info.name);
    return absl::InvalidArgumentError(absl::StrCat("mcp_servers.", server.settings.name,
                                                   ".tools: it has no tool '", wanted,
                                                   "'; it has: ", absl::StrJoin(names, ", ")));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Tools> MakeMcpTools(const McpServer& server,
                                   const std::function<bool()>& is_stopped) {
  const auto client = std::make_shared<mcp::Client>(server.settings);
  const absl::StatusOr<std::vector<mcp::ToolInfo>> infos =
      client->ListTools({.is_stopped = is_stopped});
  if (!infos.ok()) return Annotate(infos.status(), "mcp_servers");
  RETURN_IF_ERROR(CheckWanted(server, *infos));
  Tools tools;
  for (const mcp::ToolInfo& info : *infos) {
    const bool is_wanted =
        server.tools.empty() ||
        std::find(server.tools.begin(), server.tools.end(), info.name) != server.tools.end();
    if (is_wanted) tools.push_back(MakeMcpTool(client, server.settings.name, info));
  }
  return tools;
}

}  // namespace flowmesh::agent
