#include "executors/tasks/local_chat.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "executors/chat/tool_calls.h"
#include "executors/tasks/chat_prompts.h"

namespace flowmesh::tasks {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(50);  // between looks at is_stopped

absl::Status CheckLimits(const agent::ChatRequest& request) {
  if (request.is_stopped && request.is_stopped()) return absl::CancelledError("stopped");
  if (Clock::Real().Monotonic() < request.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the model has not answered in time");
}

}  // namespace

LocalChat::LocalChat(model::LoadedModel* loaded, ModelTurns* turns, LocalChatOptions options,
                     chat::ChatTemplate without_tools, std::optional<chat::ChatTemplate> with_tools)
    : loaded_(loaded),
      turns_(turns),
      options_(std::move(options)),
      template_(std::move(without_tools)),
      tool_template_(std::move(with_tools)),
      engine_(engine::Engine::Create(loaded, options_.engine)) {}

absl::StatusOr<std::unique_ptr<LocalChat>> LocalChat::Make(model::LoadedModel* loaded,
                                                           ModelTurns* turns,
                                                           LocalChatOptions options) {
  const std::string& source =
      options.chat_template.empty() ? loaded->tokenizer->chat_template() : options.chat_template;
  if (source.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(loaded->path.string(), ": the model has no chat template"));
  }
  ASSIGN_OR_RETURN(chat::ChatTemplate without_tools, chat::ChatTemplate::Parse(source));
  std::optional<chat::ChatTemplate> with_tools;
  if (options.chat_template.empty() && !loaded->tokenizer->tool_template().empty()) {
    ASSIGN_OR_RETURN(with_tools, chat::ChatTemplate::Parse(loaded->tokenizer->tool_template()));
  }
  return absl::WrapUnique(new LocalChat(loaded, turns, std::move(options), std::move(without_tools),
                                        std::move(with_tools)));
}

absl::StatusOr<std::string> LocalChat::Render(const agent::ChatRequest& request) const {
  const bool is_of_tools = tool_template_ && !request.tools.empty();
  const auto render = [&](const std::vector<chat::Message>& messages) {
    return (is_of_tools ? *tool_template_ : template_)
        .Render(chat::MessagesForTemplate(messages), chat::ToolsForTemplate(request.tools),
                {.special_tokens = SpecialTokens(*loaded_->tokenizer),
                 .variables = options_.template_variables,
                 .now = Clock::Real().Now()});
  };
  absl::StatusOr<std::string> text = render(request.messages);
  const bool has_several =
      std::any_of(request.messages.begin(), request.messages.end(),
                  [](const chat::Message& message) { return message.tool_calls.size() > 1; });
  // Llama 3's templates raise where a message has two calls.
  if (absl::IsInvalidArgument(text.status()) && has_several) {
    absl::StatusOr<std::string> parted = render(chat::OneCallAtATime(request.messages));
    if (parted.ok()) return parted;
  }
  return text;
}

absl::Status ModelTurns::Enter(const agent::ChatRequest& request) {
  const auto is_free = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !is_taken_; };
  absl::MutexLock lock(&mutex_);
  while (!mutex_.AwaitWithTimeout(absl::Condition(&is_free), kPoll)) {
    RETURN_IF_ERROR(CheckLimits(request));
  }
  RETURN_IF_ERROR(CheckLimits(request));
  is_taken_ = true;
  return absl::OkStatus();
}

void ModelTurns::Leave() {
  absl::MutexLock lock(&mutex_);
  is_taken_ = false;
}

absl::StatusOr<std::vector<engine::Completion>> LocalChat::Generate(
    const engine::GenerationRequest& generation, const agent::ChatRequest& request) {
  try {
    return engine_->Generate({generation}, [&](const auto&) { return CheckLimits(request).ok(); });
  } catch (const std::exception& e) {  // libtorch's; agents' threads know none
    return absl::InternalError(absl::StrCat("the model failed: ", e.what()));
  }
}

absl::StatusOr<agent::ChatReply> LocalChat::Chat(const agent::ChatRequest& request) {
  ASSIGN_OR_RETURN(const std::string prompt, Render(request));
  // The template has written the special tokens that the model wants.
  engine::GenerationRequest generation{
      .prompt_ids = loaded_->tokenizer->Encode(prompt, /*add_special_tokens=*/false),
      .params = options_.params};
  const auto prompt_tokens = static_cast<int64_t>(generation.prompt_ids.size());
  const int64_t limit = engine_->max_model_len();
  if (prompt_tokens == 0 || prompt_tokens >= limit) {
    return absl::InvalidArgumentError(absl::StrCat("the conversation has ", prompt_tokens,
                                                   " tokens, the model takes 1 to ", limit - 1));
  }
  const auto& ids = generation.prompt_ids;
  const int64_t vocab_size = loaded_->model->info().vocab_size;
  if (const auto most = std::max_element(ids.begin(), ids.end()); *most >= vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("the conversation has the token '",
                                                   loaded_->tokenizer->TokenText(*most),
                                                   "', for which the model has no row"));
  }
  generation.params.max_tokens = std::min(generation.params.max_tokens, limit - prompt_tokens);

  RETURN_IF_ERROR(turns_->Enter(request));
  const auto leave = absl::MakeCleanup([this] { turns_->Leave(); });
  auto completions = Generate(generation, request);
  if (absl::IsCancelled(completions.status())) {  // by which limit?
    const absl::Status why = CheckLimits(request);
    return why.ok() ? completions.status() : why;
  }
  if (!completions.ok()) return completions.status();
  const engine::Completion& completion = completions->front();
  agent::ChatReply reply;
  reply.message = chat::ReadReply(completion.text, request.tools);
  reply.finish_reason = reply.message.tool_calls.empty() ? completion.finish_reason : "tool_calls";
  reply.usage = {prompt_tokens, static_cast<int64_t>(completion.token_ids.size())};
  return reply;
}

}  // namespace flowmesh::tasks
