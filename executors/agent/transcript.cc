#include "executors/agent/transcript.h"

#include <utility>

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/redact.h"

namespace flowmesh::agent {

std::string Transcript::WithoutSecrets(const std::string& text) const {
  return flowmesh::WithoutSecrets(text, HttpRequest(), secrets_);
}

void Transcript::Line(const std::string& text) {
  lines_.push_back(WithoutSecrets(text));
  if (on_line_) on_line_(lines_.back());
}

void Transcript::Message(const std::string& agent, const chat::Message& message) {
  Json json = {{"time", FormatTimestamp(Clock::Real().Now())}};
  if (!agent.empty()) json["agent"] = agent;
  json["role"] = message.role;
  json["content"] = WithoutSecrets(message.content);
  for (const chat::ToolCall& call : message.tool_calls) {
    json["tool_calls"].push_back({{"id", WithoutSecrets(call.id)},
                                  {"name", WithoutSecrets(call.name)},
                                  {"arguments", WithoutSecrets(call.arguments)}});
  }
  if (!message.tool_call_id.empty()) json["tool_call_id"] = WithoutSecrets(message.tool_call_id);
  if (!message.name.empty()) json["name"] = WithoutSecrets(message.name);
  absl::Status written = AppendFile(file_, DumpJson(json) + "\n");
  if (status_.ok()) status_ = std::move(written);
}

void Transcript::Count(const ChatUsage& usage) {
  ++replies_;
  usage_.prompt_tokens += usage.prompt_tokens;
  usage_.completion_tokens += usage.completion_tokens;
}

}  // namespace flowmesh::agent
