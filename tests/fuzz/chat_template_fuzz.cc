// Chat templates and replies: any bytes are a template, rendered with messages and a tool, or an
// error; and any bytes are a reply.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "executors/chat/chat_template.h"
#include "executors/chat/tool_calls.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flowmesh;  // NOLINT(google-build-using-namespace)
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<chat::ToolSpec> tools = {{"look", "Looks", Json{{"type", "object"}}}};
  const chat::Message reply = chat::ReadReply(text, tools);
  const auto parsed = chat::ChatTemplate::Parse(text);
  if (!parsed.ok()) return 0;
  chat::RenderOptions options;
  options.special_tokens = {{"bos_token", "<s>"}};
  options.now = absl::FromUnixSeconds(1762160400);
  const Json messages = chat::MessagesForTemplate(
      {{.role = "user", .content = "hello", .tool_calls = {}, .tool_call_id = "", .name = ""},
       reply});
  (void)parsed->Render(messages, chat::ToolsForTemplate(tools), options);
  return 0;
}
