// The chat template of a model: Jinja source that turns messages and tools into the text which the
// model was trained on. The subset of Jinja that such templates use, with the settings and
// functions that Transformers gives them, and its exact text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/chat/message.h"

namespace flowmesh::chat {

struct RenderOptions {
  bool add_generation_prompt = true;
  // `bos_token`, `eos_token`, ...: those that the tokenizer has.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  Json variables = Json::object();  // more of them: `chat_template_kwargs`
  absl::Time now;                   // for strftime_now, in the local time zone
};

// Immutable; any thread may use it.
class ChatTemplate {
 public:
  // InvalidArgument names the line and what is wrong or not supported.
  static absl::StatusOr<ChatTemplate> Parse(std::string_view source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `messages` and `tools` are lists in the form of OpenAI's chat completions, with arguments of
  // calls as maps; no tools are None. InvalidArgument: what the template says of them, with its
  // line. ResourceExhausted: the template costs too much.
  absl::StatusOr<std::string> Render(const Json& messages, const Json& tools,
                                     const RenderOptions& options) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::unique_ptr<const Parsed> parsed);

  std::unique_ptr<const Parsed> parsed_;
};

// The same conversation with one call in a message, each followed by its answer: for templates that
// take no more.
std::vector<Message> OneCallAtATime(const std::vector<Message>& messages);

// Messages and tools as templates take them.
Json MessagesForTemplate(const std::vector<Message>& messages);
Json ToolsForTemplate(const std::vector<ToolSpec>& tools);

}  // namespace flowmesh::chat
