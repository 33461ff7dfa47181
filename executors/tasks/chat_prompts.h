// Prompts through the model's chat template: `inference.apply_chat_template` (TASKS.md 8).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/field.h"
#include "executors/data/prompts.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::tasks {

struct ChatSettings {
  std::string system_prompt;                 // becomes a system message; empty: none
  Json template_variables = Json::object();  // inference.chat_template_kwargs
};

// Nothing unless `spec.inference.apply_chat_template` is true. InvalidArgument names the field.
absl::StatusOr<std::optional<ChatSettings>> ReadChatSettings(const Field& spec,
                                                             const std::string& system_prompt);

// Makes `rendered` of each prompt the template's text, to be encoded without special tokens, which
// it holds itself. A prompt is a text, which is a user's message, or a list of messages.
// FailedPrecondition: the model has no template. InvalidArgument names the prompt's field.
absl::Status RenderChats(const ChatSettings& settings, const text::Tokenizer& tokenizer,
                         std::vector<data::Prompt>& prompts);

// The tokens that templates know by name (`bos_token`, ...), as text.
std::vector<std::pair<std::string, std::string>> SpecialTokens(const text::Tokenizer& tokenizer);

}  // namespace flowmesh::tasks
