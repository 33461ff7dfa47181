#include "executors/mcp/client.h"

#include <algorithm>
#include <array>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "executors/mcp/jsonrpc.h"

namespace flowmesh::mcp {
namespace {

constexpr char kProtocolVersion[] = "2025-06-18";
// Versions in which the messages that are used here are the same.
constexpr std::array<const char*, 4> kKnownVersions = {"2024-11-05", "2025-03-26", "2025-06-18",
                                                       "2025-11-25"};
constexpr absl::Duration kStartTime = absl::Seconds(60);  // some are fetched before they start
constexpr absl::Duration kPoll = absl::Milliseconds(50);  // between looks at is_stopped
constexpr int kMaxStarts = 5;   // in a row, without an answer to a request
constexpr int kMaxPages = 100;  // of a list of tools
constexpr size_t kMaxTools = 1000;

CallLimits Bounded(const CallLimits& limits, absl::Duration most) {
  return {std::min(limits.deadline, Clock::Real().Monotonic() + most), limits.is_stopped};
}

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

absl::StatusOr<std::shared_ptr<Connection>> Client::Start(const CallLimits& limits) const {
  std::shared_ptr<Connection> connection;
  if (settings_.url.empty()) {
    ASSIGN_OR_RETURN(connection, StartStdio(settings_));
  } else {
    connection = MakeHttp(settings_);
  }
  const Json params = {{"protocolVersion", kProtocolVersion},
                       {"capabilities", Json::object()},
                       {"clientInfo", {{"name", "flowmesh-worker"}, {"version", "1"}}}};
  absl::StatusOr<Json> hello = connection->Request(kInitialize, params, limits);
  if (!hello.ok()) return Annotate(hello.status(), kInitialize);
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
  std::shared_ptr<Connection> ended;  // may take its time, which is not for others to wait
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(AwaitStart(limits));
    if (connection_ != nullptr && !connection_->is_closed()) return connection_;
    if (starts_ >= kMaxStarts) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the server was started ", starts_, " times and answered nothing"));
    }
    ended = std::move(connection_);
    is_starting_ = true;
  }
  const absl::Cleanup over = [this] {
    absl::MutexLock lock(&mutex_);
    is_starting_ = false;
  };
  ended.reset();
  const CallLimits bounded = Bounded(limits, kStartTime);
  absl::StatusOr<std::shared_ptr<Connection>> started = Start(bounded);
  const bool is_callers_end =
      absl::IsCancelled(started.status()) ||
      (absl::IsDeadlineExceeded(started.status()) && bounded.deadline == limits.deadline);
  absl::MutexLock lock(&mutex_);
  if (!is_callers_end) ++starts_;
  if (started.ok()) connection_ = *started;
  return started;
}

absl::Status Client::AwaitStart(const CallLimits& limits) {
  const auto is_over = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !is_starting_; };
  while (true) {
    const absl::Duration left = limits.deadline - Clock::Real().Monotonic();
    const absl::Duration wait = std::clamp(left, absl::ZeroDuration(), kPoll);
    if (mutex_.AwaitWithTimeout(absl::Condition(&is_over), wait)) return absl::OkStatus();
    RETURN_IF_ERROR(CheckLimits(limits));
  }
}

absl::StatusOr<Json> Client::Request(const std::string& method, const Json& params,
                                     const CallLimits& limits) {
  ASSIGN_OR_RETURN(std::shared_ptr<Connection> connection, Connect(limits));
  absl::StatusOr<Json> result =
      connection->Request(method, params, Bounded(limits, settings_.timeout));
  if (absl::IsNotFound(result.status())) {  // a forgotten session: the server did nothing
    ASSIGN_OR_RETURN(connection, Connect(limits));
    result = connection->Request(method, params, Bounded(limits, settings_.timeout));
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
  const absl::Status connected = Connect(limits).status();
  if (!connected.ok()) return Annotate(connected, settings_.name);
  absl::StatusOr<std::vector<ToolInfo>> tools = ReadTools(Bounded(limits, settings_.timeout));
  if (!tools.ok()) return Annotate(tools.status(), settings_.name);
  return tools;
}

absl::StatusOr<ToolResult> Client::CallTool(const std::string& name, const Json& arguments,
                                            const CallLimits& limits) {
  absl::StatusOr<Json> result =
      Request("tools/call", {{"name", name}, {"arguments", arguments}}, limits);
  if (!result.ok()) return Annotate(result.status(), settings_.name);
  absl::StatusOr<ToolResult> read = ReadToolResult(*result);
  if (!read.ok()) return Annotate(read.status(), settings_.name);
  return read;
}

}  // namespace flowmesh::mcp
