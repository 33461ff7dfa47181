#include "executors/mcp/jsonrpc.h"

namespace flowmesh::mcp {
namespace {

constexpr int kMethodNotFound = -32601;

Json Base() { return {{"jsonrpc", "2.0"}}; }

}  // namespace

Json RequestMessage(int64_t id, const std::string& method, const Json& params) {
  Json message = NotificationMessage(method, params);
  message["id"] = id;
  return message;
}

Json NotificationMessage(const std::string& method, const Json& params) {
  Json message = Base();
  message["method"] = method;
  if (!params.is_null()) message["params"] = params;
  return message;
}

Json CancelledMessage(int64_t id) {
  return NotificationMessage("notifications/cancelled",
                             {{"requestId", id}, {"reason", "no longer waited for"}});
}

Json AnswerTo(const Json& request) {
  Json answer = Base();
  answer["id"] = request["id"];
  if (request["method"] == "ping") {
    answer["result"] = Json::object();
  } else {
    answer["error"] = {{"code", kMethodNotFound}, {"message", "Method not found"}};
  }
  return answer;
}

MessageKind KindOf(const Json& message) {
  if (!message.is_object()) return MessageKind::kNone;
  const auto method = message.find("method");
  const bool has_id = message.contains("id") && !message["id"].is_null();
  if (method != message.end()) {
    if (!method->is_string()) return MessageKind::kNone;
    return has_id ? MessageKind::kRequest : MessageKind::kNotification;
  }
  return has_id && (message.contains("result") || message.contains("error")) ? MessageKind::kAnswer
                                                                             : MessageKind::kNone;
}

std::optional<int64_t> AnswerId(const Json& message) {
  const Json& id = message["id"];
  return id.is_number_integer() ? std::optional(id.get<int64_t>()) : std::nullopt;
}

absl::StatusOr<Json> ResultOf(const Json& answer) {
  const auto error = answer.find("error");
  if (error == answer.end() || error->is_null()) return answer.value("result", Json());
  const auto text = error->is_object() ? error->find("message") : error->end();
  const bool has_text = error->is_object() && text != error->end() && text->is_string();
  return absl::InvalidArgumentError(has_text ? text->get<std::string>()
                                             : std::string("an error without a message"));
}

}  // namespace flowmesh::mcp
