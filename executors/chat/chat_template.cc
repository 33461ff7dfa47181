#include "executors/chat/chat_template.h"

#include "executors/chat/evaluator.h"
#include "executors/chat/parser.h"

namespace flowmesh::chat {

struct ChatTemplate::Parsed {
  Body body;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  absl::StatusOr<Body> body = ParseTemplate(source);
  if (!body.ok()) return Annotate(body.status(), "chat template");
  return ChatTemplate(std::make_unique<const Parsed>(Parsed{*std::move(body)}));
}

absl::StatusOr<std::string> ChatTemplate::Render(const Json& messages, const Json& tools,
                                                 const RenderOptions& options) const {
  std::vector<std::pair<std::string, Value>> variables;
  const auto add = [&variables](const std::string& name, const Json& json) -> absl::Status {
    ASSIGN_OR_RETURN(Value value, Value::FromJson(json));
    variables.emplace_back(name, std::move(value));
    return absl::OkStatus();
  };
  for (const auto& [name, text] : options.special_tokens) variables.emplace_back(name, text);
  variables.emplace_back("documents", Value::None{});
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  for (const auto& [name, value] : options.variables.items()) RETURN_IF_ERROR(add(name, value));
  RETURN_IF_ERROR(add("messages", messages));
  RETURN_IF_ERROR(add("tools", tools.empty() ? Json(nullptr) : tools));
  absl::StatusOr<std::string> text = Evaluate(parsed_->body, std::move(variables), options.now);
  if (!text.ok()) return Annotate(text.status(), "chat template");
  return text;
}

std::vector<Message> OneCallAtATime(const std::vector<Message>& messages) {
  std::vector<Message> out;
  std::vector<bool> is_taken(messages.size(), false);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (is_taken[i]) continue;
    out.push_back(messages[i]);
    if (messages[i].tool_calls.size() < 2) continue;
    out.pop_back();
    for (const ToolCall& call : messages[i].tool_calls) {
      const bool is_first = &call == &messages[i].tool_calls.front();
      out.push_back({.role = messages[i].role,
                     .content = is_first ? messages[i].content : "",
                     .tool_calls = {call}});
      for (size_t k = i + 1; k < messages.size() && messages[k].role == "tool"; ++k) {
        if (is_taken[k] || messages[k].tool_call_id != call.id) continue;
        is_taken[k] = true;
        out.push_back(messages[k]);
        break;
      }
    }
  }
  return out;
}

Json MessagesForTemplate(const std::vector<Message>& messages) {
  Json list = Json::array();
  for (const Message& message : messages) {
    Json& json = list.emplace_back(Json{{"role", message.role}, {"content", message.content}});
    if (!message.name.empty()) json["name"] = message.name;
    if (!message.tool_call_id.empty()) json["tool_call_id"] = message.tool_call_id;
    for (const ToolCall& call : message.tool_calls) {
      // Templates write a map of arguments with their own white space, and a text as it is.
      const absl::StatusOr<Json> arguments = ParseJson(call.arguments);
      const bool is_map = arguments.ok() && arguments->is_object();
      Json function = {{"name", call.name},
                       {"arguments", is_map ? *arguments : Json(call.arguments)}};
      json["tool_calls"].push_back(
          Json{{"id", call.id}, {"type", "function"}, {"function", std::move(function)}});
    }
  }
  return list;
}

Json ToolsForTemplate(const std::vector<ToolSpec>& tools) {
  Json list = Json::array();
  for (const ToolSpec& tool : tools) {
    Json function = {
        {"name", tool.name}, {"description", tool.description}, {"parameters", tool.parameters}};
    list.push_back(Json{{"type", "function"}, {"function", std::move(function)}});
  }
  return list;
}

}  // namespace flowmesh::chat
