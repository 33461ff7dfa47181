// `responses`: a list of items goes in and comes out; streamed as events, of which the last one
// holds the whole reply.
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "executors/agent/reply_reader.h"

namespace flowmesh::agent {
namespace {

absl::StatusOr<ChatReply> ReadResponse(const Json& response) {
  RETURN_IF_ERROR(ErrorOf(response, absl::StatusCode::kFailedPrecondition));
  const Field root(&response, ""), output = root["output"];
  if (!output.json().is_array()) return absl::DataLossError("the answer has no list `output`");
  ChatReply reply;
  reply.message.role = "assistant";
  for (size_t i = 0; i < output.size(); ++i) {
    const std::string type = output[i]["type"].StringOr("").value_or("");
    if (type == "message") reply.message.content += TextOf(output[i]["content"].json());
    if (type != "function_call") continue;
    chat::ToolCall call{.id = output[i]["call_id"].StringOr("").value_or(""),
                        .name = output[i]["name"].StringOr("").value_or(""),
                        .arguments = output[i]["arguments"].StringOr("").value_or("")};
    if (call.id.empty()) call.id = absl::StrCat("call_", reply.message.tool_calls.size());
    reply.message.tool_calls.push_back(std::move(call));
  }
  const Field usage = root["usage"];
  reply.usage = {usage["input_tokens"].IntOr(0).value_or(0),
                 usage["output_tokens"].IntOr(0).value_or(0)};
  const bool is_cut = root["status"].StringOr("").value_or("") == "incomplete";
  reply.finish_reason = is_cut                             ? "length"
                        : reply.message.tool_calls.empty() ? "stop"
                                                           : "tool_calls";
  return reply;
}

class ResponsesReader : public ReplyReader {
 public:
  absl::Status OnEvent(const SseEvent& event) override {
    if (event.data == "[DONE]") return absl::OkStatus();
    const absl::StatusOr<Json> json = ParseJson(event.data);
    if (!json.ok() || !json->is_object()) {
      return absl::DataLossError("an event of the stream is no JSON map");
    }
    const Field root(&*json, "");
    const std::string type = root["type"].StringOr("").value_or("");
    if (type == "error") {
      return absl::UnavailableError(
          absl::StrCat("the server failed: ", root["message"].StringOr("").value_or("")));
    }
    if (type == "response.failed") {
      RETURN_IF_ERROR(ErrorOf(root["response"].json(), absl::StatusCode::kUnavailable));
      return absl::UnavailableError("the server failed");
    }
    if (type == "response.completed" || type == "response.incomplete") {
      ASSIGN_OR_RETURN(reply_, ReadResponse(root["response"].json()));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<ChatReply> FinishStream() override {
    if (!reply_) return absl::UnavailableError("the stream stopped in the middle of a reply");
    return *std::move(reply_);
  }

  absl::StatusOr<ChatReply> ReadWhole(const Json& answer) override { return ReadResponse(answer); }

 private:
  std::optional<ChatReply> reply_;
};

void AddItems(const chat::Message& message, Json& items) {
  if (message.role == "tool") {
    items.push_back({{"type", "function_call_output"},
                     {"call_id", message.tool_call_id},
                     {"output", message.content}});
    return;
  }
  if (!message.content.empty() || message.tool_calls.empty()) {
    items.push_back({{"role", message.role}, {"content", message.content}});
  }
  for (const chat::ToolCall& call : message.tool_calls) {
    items.push_back({{"type", "function_call"},
                     {"call_id", call.id},
                     {"name", call.name},
                     {"arguments", ArgumentsOf(call)}});
  }
}

}  // namespace

std::unique_ptr<ReplyReader> MakeResponsesReader() { return std::make_unique<ResponsesReader>(); }

Json ResponsesRequest(const EndpointSettings& settings, const ChatRequest& request,
                      bool is_streamed) {
  Json body = {{"model", settings.model}, {"input", Json::array()}, {"store", false}};
  for (const chat::Message& message : request.messages) AddItems(message, body["input"]);
  for (const chat::ToolSpec& tool : request.tools) {
    body["tools"].push_back({{"type", "function"},
                             {"name", tool.name},
                             {"description", tool.description},
                             {"parameters", tool.parameters},
                             {"strict", false}});
  }
  if (settings.temperature) body["temperature"] = *settings.temperature;
  if (settings.max_tokens) body["max_output_tokens"] = *settings.max_tokens;
  if (is_streamed) body["stream"] = true;
  return body;
}

}  // namespace flowmesh::agent
