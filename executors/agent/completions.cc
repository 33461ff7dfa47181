// `chat.completions`: messages with roles; streamed as deltas.
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"
#include "executors/agent/reply_reader.h"

namespace flowmesh::agent {
namespace {

constexpr size_t kMaxReplyBytes = 16u << 20;

std::string StringIn(const Json& map, const char* key) {
  const auto it = map.is_object() ? map.find(key) : map.end();
  return it != map.end() && it->is_string() ? it->get<std::string>() : "";
}

ChatUsage UsageOf(const Json& answer) {
  const Field usage = Field(&answer, "")["usage"];
  return {usage["prompt_tokens"].IntOr(0).value_or(0),
          usage["completion_tokens"].IntOr(0).value_or(0)};
}

Json MessageJson(const chat::Message& message) {
  Json json = {{"role", message.role}, {"content", message.content}};
  if (message.role == "tool") json["tool_call_id"] = message.tool_call_id;
  if (message.tool_calls.empty()) return json;
  if (message.content.empty()) json["content"] = nullptr;
  for (const chat::ToolCall& call : message.tool_calls) {
    json["tool_calls"].push_back(
        {{"id", call.id},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", ArgumentsOf(call)}}}});
  }
  return json;
}

class CompletionsReader : public ReplyReader {
 public:
  absl::Status OnEvent(const SseEvent& event) override {
    if (event.data == "[DONE]") {
      is_done_ = true;
      return absl::OkStatus();
    }
    bytes_ += event.data.size();
    if (bytes_ > kMaxReplyBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the reply is larger than ", kMaxReplyBytes >> 20, " MiB"));
    }
    ASSIGN_OR_RETURN(const Json chunk, ParseEvent(event));
    RETURN_IF_ERROR(ErrorOf(chunk, absl::StatusCode::kUnavailable));
    is_begun_ = true;
    if (const ChatUsage usage = UsageOf(chunk); usage.prompt_tokens + usage.completion_tokens > 0) {
      reply_.usage = usage;
    }
    const Field choice = Field(&chunk, "")["choices"][0];
    const Field delta = choice["delta"];
    reply_.message.content += TextOf(delta["content"].json());
    for (size_t i = 0; i < delta["tool_calls"].size(); ++i) AddToCall(delta["tool_calls"][i]);
    const std::string reason = StringIn(choice.json(), "finish_reason");
    if (!reason.empty()) reply_.finish_reason = reason;
    return absl::OkStatus();
  }

  absl::StatusOr<ChatReply> FinishStream() override {
    if (!is_begun_) return absl::UnavailableError("the stream ended before it said anything");
    // Some servers leave out the one, some the other.
    if (!is_done_ && reply_.finish_reason.empty()) {
      return absl::UnavailableError("the stream stopped in the middle of a reply");
    }
    return Finish();
  }

  absl::StatusOr<ChatReply> ReadWhole(const Json& answer) override {
    RETURN_IF_ERROR(ErrorOf(answer, absl::StatusCode::kFailedPrecondition));
    const Field choice = Field(&answer, "")["choices"][0], message = choice["message"];
    if (!message.json().is_object()) {
      return absl::DataLossError("the answer has no choices[0].message");
    }
    reply_.message.content = TextOf(message["content"].json());
    for (size_t i = 0; i < message["tool_calls"].size(); ++i) AddToCall(message["tool_calls"][i]);
    reply_.finish_reason = StringIn(choice.json(), "finish_reason");
    reply_.usage = UsageOf(answer);
    return Finish();
  }

 private:
  static absl::StatusOr<Json> ParseEvent(const SseEvent& event) {
    absl::StatusOr<Json> chunk = ParseJson(event.data);
    if (chunk.ok() && chunk->is_object()) return chunk;
    return absl::DataLossError("an event of the stream is no JSON map");
  }

  // A delta goes to the last call with its index, or to that with its id; without both, to the last
  // call, unless it names a tool. Another id with a name is another call, also where a server gives
  // all of them one index.
  void AddToCall(const Field& delta) {
    const std::optional<int64_t> index = delta["index"].present() && delta["index"].Int().ok()
                                             ? std::optional(*delta["index"].Int())
                                             : std::nullopt;
    const std::string id = StringIn(delta.json(), "id");
    const std::string name = StringIn(delta["function"].json(), "name");
    size_t place = calls_.size();
    for (size_t i = 0; i < calls_.size(); ++i) {
      const OpenCall& open = calls_[i];
      if (index ? open.index == index : !id.empty() && open.call.id == id) place = i;
    }
    if (place < calls_.size() && !id.empty() && !name.empty() && !calls_[place].call.id.empty() &&
        calls_[place].call.id != id) {
      place = calls_.size();
    }
    if (place == calls_.size() && !index && id.empty() && name.empty() && place > 0) --place;
    if (place == calls_.size()) calls_.push_back({index, {}});
    chat::ToolCall& call = calls_[place].call;
    if (!id.empty()) call.id = id;
    if (call.name.empty()) call.name = name;
    const Json& arguments = delta["function"]["arguments"].json();
    // Some servers send the map itself.
    if (arguments.is_string()) call.arguments += arguments.get_ref<const std::string&>();
    if (arguments.is_object()) call.arguments += DumpJson(arguments);
  }

  ChatReply Finish() {
    reply_.message.role = "assistant";
    for (OpenCall& open : calls_) {
      if (open.call.id.empty()) {
        open.call.id = absl::StrCat("call_", reply_.message.tool_calls.size());
      }
      reply_.message.tool_calls.push_back(std::move(open.call));
    }
    if (reply_.finish_reason.empty()) reply_.finish_reason = calls_.empty() ? "stop" : "tool_calls";
    return std::move(reply_);
  }

  struct OpenCall {
    std::optional<int64_t> index;
    chat::ToolCall call;
  };

  ChatReply reply_;
  std::vector<OpenCall> calls_;
  size_t bytes_ = 0;
  bool is_begun_ = false, is_done_ = false;
};

}  // namespace

std::string ArgumentsOf(const chat::ToolCall& call) {
  const absl::StatusOr<Json> arguments = ParseJson(call.arguments);
  if (arguments.ok() && arguments->is_object()) return call.arguments;
  const bool is_nothing = Trim(call.arguments).empty() || (arguments.ok() && arguments->is_null());
  return is_nothing ? "{}" : DumpJson({{"invalid", call.arguments}});
}

std::string TextOf(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  if (!content.is_array()) return text;
  for (const Json& part : content) text += StringIn(part, "text");
  return text;
}

absl::Status ErrorOf(const Json& answer, absl::StatusCode code) {
  const Field error = Field(&answer, "")["error"];
  if (!error.present()) return absl::OkStatus();
  const std::string text = StringIn(error.json(), "message");
  return {code,
          absl::StrCat("the server failed: ",
                       !text.empty() ? text : std::string(CutUtf8(DumpJson(error.json()), 200)))};
}

std::unique_ptr<ReplyReader> MakeCompletionsReader() {
  return std::make_unique<CompletionsReader>();
}

Json CompletionsRequest(const EndpointSettings& settings, const ChatRequest& request,
                        bool is_streamed) {
  Json body = {{"model", settings.model}, {"messages", Json::array()}};
  for (const chat::Message& message : request.messages) {
    body["messages"].push_back(MessageJson(message));
  }
  for (const chat::ToolSpec& tool : request.tools) {
    body["tools"].push_back({{"type", "function"},
                             {"function",
                              {{"name", tool.name},
                               {"description", tool.description},
                               {"parameters", tool.parameters}}}});
  }
  if (settings.temperature) body["temperature"] = *settings.temperature;
  if (settings.max_tokens) body["max_tokens"] = *settings.max_tokens;
  if (is_streamed) {
    body["stream"] = true;
    body["stream_options"] = {{"include_usage", true}};
  }
  return body;
}

}  // namespace flowmesh::agent
