#include "executors/mcp/client.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"

namespace flowmesh::mcp {
namespace {

constexpr char kProtocolVersion[] = "2025-06-18";
// Versions in which the messages that are used here are the same.
constexpr std::array<const char*, 4> kKnownVersions = {"2024-11-05", "2025-03-26", "2025-06-18",
                                                       "2025-11-25"};
constexpr int kMaxStarts = 5;   // in a row, without an answer to a request
constexpr int kMaxPages = 100;  // of a list of tools
constexpr size_t kMaxTools = 1000;

std::string StringOr(const Json& map, const char* key, const char* otherwise) {
  const auto found = map.find(key);
  return found != map.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

// One part of a tool's answer.
std::string PartText(const Json& part) {
  if (!part.is_object()) return "";
  const std::string type = StringOr(part, "type", "");
  if (type == "text") return StringOr(part, "text", "");
  if (type == "resource_link") return StringOr(part, "uri", "");
  if (type == "resource" && part.contains("resource") && part["resource"].is_object()) {
    const Json& resource = part["resource"];
    if (resource.contains("text")) return StringOr(resource, "text", "");
    return absl::StrCat("[", StringOr(resource, "uri", "a resource"), ", not text]");
  }
  return absl::StrCat("[", type.empty() ? "something" : type, " of ",
                      StringOr(part, "data", "").size(), " base64 characters]");
}

absl::StatusOr<ToolResult> ReadToolResult(const Json& json) {
  if (!json.is_object()) {
    return absl::DataLossError(
        absl::StrCat("tools/call: expected a map as result, got ", DescribeJson(json)));
  }
  ToolResult result;
  result.is_error = json.value("isError", Json(false)) == true;
  const auto content = json.find("content");
  if (content != json.end() && content->is_array()) {
    for (const Json& part : *content) {
      if (!result.text.empty()) result.text += '\n';
      result.text += PartText(part);
    }
  }
  const auto structured = json.find("structuredContent");
  if (result.text.empty() && structured != json.end()) result.text = DumpJson(*structured);
  return result;
}

absl::StatusOr<ToolInfo> ReadTool(const Json& json) {
  if (!json.is_object() || StringOr(json, "name", "").empty()) {
    return absl::DataLossError(
        absl::StrCat("tools/list: expected a tool with a name, got ", DescribeJson(json)));
  }
  ToolInfo tool{StringOr(json, "name", ""), StringOr(json, "description", ""), Json::object()};
  const auto schema = json.find("inputSchema");
  if (schema != json.end() && schema->is_object()) tool.input_schema = *schema;
  return tool;
}

}  // namespace

CallLimits Client::WithTimeout(const CallLimits& limits) const {
  return {std::min(limits.deadline, Clock::Real().Monotonic() + settings_.timeout),
          limits.is_stopped};
}

absl::StatusOr<std::shared_ptr<Connection>> Client::Start(const CallLimits& limits) {
  const auto on_notification = [this](const std::string& method) {
    if (method == "notifications/tools/list_changed") tools_changed_ = true;
  };
  std::shared_ptr<Connection> connection;
  if (settings_.url.empty()) {
    ASSIGN_OR_RETURN(connection, StartStdio(settings_, on_notification));
  } else {
    connection = MakeHttp(settings_, on_notification);
  }
  const Json params = {{"protocolVersion", kProtocolVersion},
                       {"capabilities", Json::object()},
                       {"clientInfo", {{"name", "flowmesh-worker"}, {"version", "1"}}}};
  absl::StatusOr<Json> hello = connection->Request("initialize", params, limits);
  if (!hello.ok()) return Annotate(hello.status(), "initialize");
  const std::string version = hello->is_object() ? StringOr(*hello, "protocolVersion", "") : "";
  if (version.empty()) {
    return absl::DataLossError("initialize: the server names no version of the protocol");
  }
  if (std::find(kKnownVersions.begin(), kKnownVersions.end(), version) == kKnownVersions.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("initialize: the server speaks version '", version.substr(0, 50),
                     "' of the protocol; known are: ", absl::StrJoin(kKnownVersions, ", ")));
  }
  connection->SetProtocolVersion(version);
  RETURN_IF_ERROR(connection->Notify("notifications/initialized", nullptr, limits));
  return connection;
}

absl::StatusOr<std::shared_ptr<Connection>> Client::Connect(const CallLimits& limits) {
  absl::MutexLock lock(&mutex_);
  if (connection_ != nullptr && !connection_->is_closed()) return connection_;
  connection_.reset();
  if (starts_ >= kMaxStarts) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the server was started ", starts_, " times and answered nothing"));
  }
  ++starts_;
  tools_changed_ = true;
  ASSIGN_OR_RETURN(connection_, Start(limits));
  return connection_;
}

absl::StatusOr<Json> Client::Request(const std::string& method, const Json& params,
                                     const CallLimits& limits) {
  ASSIGN_OR_RETURN(std::shared_ptr<Connection> connection, Connect(limits));
  absl::StatusOr<Json> result = connection->Request(method, params, limits);
  if (absl::IsNotFound(result.status())) {  // a forgotten session: the server did nothing
    ASSIGN_OR_RETURN(connection, Connect(limits));
    result = connection->Request(method, params, limits);
  }
  if (result.ok() || absl::IsInvalidArgument(result.status())) {
    absl::MutexLock lock(&mutex_);
    starts_ = 0;
  }
  return result;
}

absl::StatusOr<std::vector<ToolInfo>> Client::ReadTools(const CallLimits& limits) {
  std::vector<ToolInfo> tools;
  Json params = Json::object();
  for (int page = 0; page < kMaxPages; ++page) {
    ASSIGN_OR_RETURN(const Json result, Request("tools/list", params, limits));
    const auto list = result.is_object() ? result.find("tools") : result.end();
    if (!result.is_object() || list == result.end() || !list->is_array()) {
      return absl::DataLossError("tools/list: expected a map with a list `tools`");
    }
    for (const Json& json : *list) {
      ASSIGN_OR_RETURN(tools.emplace_back(), ReadTool(json));
    }
    const std::string cursor = StringOr(result, "nextCursor", "");
    if (cursor.empty()) return tools;
    if (tools.size() > kMaxTools) break;
    params["cursor"] = cursor;
  }
  return absl::ResourceExhaustedError("tools/list: the server's list has no end");
}

absl::StatusOr<std::vector<ToolInfo>> Client::ListTools(const CallLimits& limits) {
  {
    absl::MutexLock lock(&mutex_);
    if (!tools_changed_) return tools_;
  }
  // What changes while the list is read is read with the next one.
  const CallLimits bounded = WithTimeout(limits);
  const absl::Status connected = Connect(bounded).status();
  if (!connected.ok()) return Annotate(connected, settings_.name);
  tools_changed_ = false;
  absl::StatusOr<std::vector<ToolInfo>> tools = ReadTools(bounded);
  if (!tools.ok()) {
    tools_changed_ = true;
    return Annotate(tools.status(), settings_.name);
  }
  absl::MutexLock lock(&mutex_);
  tools_ = *tools;
  return tools;
}

absl::StatusOr<ToolResult> Client::CallTool(const std::string& name, const Json& arguments,
                                            const CallLimits& limits) {
  absl::StatusOr<Json> result =
      Request("tools/call", {{"name", name}, {"arguments", arguments}}, WithTimeout(limits));
  if (!result.ok()) return Annotate(result.status(), settings_.name);
  absl::StatusOr<ToolResult> read = ReadToolResult(*result);
  if (!read.ok()) return Annotate(read.status(), settings_.name);
  return read;
}

}  // namespace flowmesh::mcp
