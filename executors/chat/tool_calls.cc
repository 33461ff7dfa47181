#include "executors/chat/tool_calls.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "common/json.h"
#include "common/strings.h"

namespace flowmesh::chat {
namespace {

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>";
constexpr std::string_view kPythonTag = "<|python_tag|>";

// Mistral's templates insist on nine letters and digits.
std::string NewId() { return RandomHex(5).substr(0, 9); }

// `{"name": ..., "arguments" or "parameters": ...}`.
std::optional<ToolCall> ReadCall(const Json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto name = json.find("name");
  if (name == json.end() || !name->is_string()) return std::nullopt;
  ToolCall call{NewId(), name->get<std::string>(), "{}"};
  for (const char* key : {"arguments", "parameters"}) {
    const auto found = json.find(key);
    if (found == json.end() || found->is_null()) continue;
    // Some models write the arguments as text of JSON.
    call.arguments = found->is_string() ? found->get<std::string>() : DumpJson(*found);
    break;
  }
  return call;
}

// The name in `"name": "..."` of JSON that is broken elsewhere; empty when there is none.
std::string NameInBroken(std::string_view text) {
  constexpr std::string_view kKey = "\"name\"";
  const size_t key = text.find(kKey);
  if (key == std::string_view::npos) return "";
  const size_t colon = text.find_first_not_of(" \t\n", key + kKey.size());
  if (colon == std::string_view::npos || text[colon] != ':') return "";
  const size_t open = text.find_first_not_of(" \t\n", colon + 1);
  if (open == std::string_view::npos || text[open] != '"') return "";
  const size_t close = text.find('"', open + 1);
  if (close == std::string_view::npos) return "";
  return std::string(text.substr(open + 1, close - open - 1));
}

std::optional<ToolCall> ReadMarkedCall(std::string_view text) {
  const absl::StatusOr<Json> json = ParseJson(text);
  if (json.ok()) return ReadCall(*json);
  std::string name = NameInBroken(text);
  if (name.empty()) return std::nullopt;
  return ToolCall{NewId(), std::move(name), std::string(text)};
}

Message ReadMarked(std::string_view text) {
  Message message;
  message.role = "assistant";
  std::string rest;
  for (size_t open = text.find(kOpen); open != std::string_view::npos; open = text.find(kOpen)) {
    const size_t begin = open + kOpen.size();
    const size_t close = text.find(kClose, begin);  // the last one may have lost its end
    const size_t end = std::min(close, text.size());
    const size_t next = close == std::string_view::npos ? text.size() : close + kClose.size();
    std::optional<ToolCall> call = ReadMarkedCall(Trim(text.substr(begin, end - begin)));
    rest += text.substr(0, call.has_value() ? open : next);
    if (call.has_value()) message.tool_calls.push_back(*std::move(call));
    text.remove_prefix(next);
  }
  rest += text;
  message.content = message.tool_calls.empty() ? std::move(rest) : std::string(Trim(rest));
  return message;
}

// Where the JSON map at the start of `text` ends; nothing when it does not.
std::optional<size_t> MapEnd(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string) {
      if (text[i] == '\\')
        ++i;
      else if (text[i] == '"')
        in_string = false;
    } else if (text[i] == '"') {
      in_string = true;
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return std::nullopt;
}

// All of `text` as calls of `tools`; none when it is anything else.
std::vector<ToolCall> ReadBareCalls(std::string_view text, const std::vector<ToolSpec>& tools) {
  std::vector<ToolCall> calls;
  text = Trim(text);
  while (!text.empty()) {
    if (!text.starts_with('{')) return {};
    const std::optional<size_t> end = MapEnd(text);
    if (!end.has_value()) return {};
    const absl::StatusOr<Json> json = ParseJson(text.substr(0, *end));
    std::optional<ToolCall> call = json.ok() ? ReadCall(*json) : std::nullopt;
    const auto is_named = [&](const ToolSpec& tool) { return tool.name == call->name; };
    if (!call.has_value() || std::none_of(tools.begin(), tools.end(), is_named)) return {};
    calls.push_back(*std::move(call));
    text = Trim(text.substr(*end));
    if (text.starts_with(';')) text = Trim(text.substr(1));
  }
  return calls;
}

}  // namespace

Message ReadReply(std::string_view text, const std::vector<ToolSpec>& tools) {
  if (text.find(kOpen) != std::string_view::npos) return ReadMarked(text);
  Message message;
  message.role = "assistant";
  const size_t tag = text.find(kPythonTag);
  const bool is_tagged = tag != std::string_view::npos;
  std::string_view calls = is_tagged ? text.substr(tag + kPythonTag.size()) : text;
  message.tool_calls = ReadBareCalls(calls, tools);
  if (message.tool_calls.empty()) {
    message.content = text;
  } else if (is_tagged) {
    message.content = Trim(text.substr(0, tag));
  }
  return message;
}

}  // namespace flowmesh::chat
