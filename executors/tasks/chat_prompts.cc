#include "executors/tasks/chat_prompts.h"

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "executors/chat/chat_template.h"

namespace flowmesh::tasks {
namespace {

absl::Status CheckMessages(const Field& list) {
  if (list.size() == 0) return list.Expected("a text or a non-empty list of messages");
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].json().is_object()) return list[i].Expected("a map with `role` and `content`");
    RETURN_IF_ERROR(list[i]["role"].NonEmptyString().status());
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> MessagesOf(const ChatSettings& settings, const data::Prompt& prompt) {
  Json messages = Json::array();
  if (prompt.raw.is_array()) {
    RETURN_IF_ERROR(CheckMessages(Field(&prompt.raw, prompt.path)));
    messages = prompt.raw;
  } else {
    messages.push_back({{"role", "user"}, {"content", JsonToText(prompt.raw)}});
  }
  if (!settings.system_prompt.empty() && messages[0]["role"] != "system") {
    messages.insert(messages.begin(),
                    Json{{"role", "system"}, {"content", settings.system_prompt}});
  }
  return messages;
}

}  // namespace

absl::StatusOr<std::optional<ChatSettings>> ReadChatSettings(const Field& spec,
                                                             const std::string& system_prompt) {
  const Field variables = spec["inference"]["chat_template_kwargs"];
  RETURN_IF_ERROR(variables.CheckMap());
  ASSIGN_OR_RETURN(const bool applies, spec["inference"]["apply_chat_template"].BoolOr(false));
  if (!applies) return std::nullopt;
  ChatSettings settings{.system_prompt = system_prompt};
  if (variables.present()) settings.template_variables = variables.json();
  return settings;
}

absl::Status RenderChats(const ChatSettings& settings, const text::Tokenizer& tokenizer,
                         std::vector<data::Prompt>& prompts) {
  if (tokenizer.chat_template().empty()) {
    return absl::FailedPreconditionError(
        "spec.inference.apply_chat_template: the model has no chat template");
  }
  ASSIGN_OR_RETURN(const chat::ChatTemplate parsed,
                   chat::ChatTemplate::Parse(tokenizer.chat_template()));
  const chat::RenderOptions options{.special_tokens = SpecialTokens(tokenizer),
                                    .variables = settings.template_variables,
                                    .now = Clock::Real().Now()};
  for (data::Prompt& prompt : prompts) {
    ASSIGN_OR_RETURN(const Json messages, MessagesOf(settings, prompt));
    absl::StatusOr<std::string> text = parsed.Render(messages, Json::array(), options);
    if (!text.ok()) return Annotate(text.status(), prompt.path);
    if (prompt.metadata["rendered_prompt"] == prompt.rendered) {
      prompt.metadata["rendered_prompt"] = *text;
    }
    prompt.rendered = *std::move(text);
  }
  return absl::OkStatus();
}

std::vector<std::pair<std::string, std::string>> SpecialTokens(const text::Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, std::string>> tokens;
  const auto add = [&](const char* name, std::optional<text::TokenId> id) {
    if (id.has_value()) tokens.emplace_back(name, tokenizer.TokenText(*id));
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("pad_token", tokenizer.pad_id());
  add("unk_token", tokenizer.unk_id());
  return tokens;
}

}  // namespace flowmesh::tasks
