// A chat model that runs in this process: the engine of this worker behind the seam of agents.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "executors/agent/chat_model.h"
#include "executors/chat/chat_template.h"
#include "executors/engine/engine.h"

namespace flowmesh::tasks {

// Whose turn it is to use a model, among all that chat with it. Any thread.
class ModelTurns {
 public:
  // Blocks until it is the caller's. Cancelled, DeadlineExceeded: as the request says.
  absl::Status Enter(const agent::ChatRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  bool is_taken_ ABSL_GUARDED_BY(mutex_) = false;
};

struct LocalChatOptions {
  engine::SamplingParams params;  // max_tokens: of one reply, less where no more fit
  engine::EngineOptions engine;
  std::string chat_template;                 // Jinja source; empty: the model's own, by tools
  Json template_variables = Json::object();  // chat_template_kwargs
};

// Borrows the model and its turns. Calls of several threads are answered one after the other, as
// are those to several of these with the same turns.
class LocalChat : public agent::ChatModel {
 public:
  // FailedPrecondition: the model has no chat template. InvalidArgument: one that cannot be read.
  static absl::StatusOr<std::unique_ptr<LocalChat>> Make(model::LoadedModel* loaded,
                                                         ModelTurns* turns,
                                                         LocalChatOptions options);

  // InvalidArgument: what the template says of the messages, or a conversation that is too long.
  absl::StatusOr<agent::ChatReply> Chat(const agent::ChatRequest& request) override;

 private:
  LocalChat(model::LoadedModel* loaded, ModelTurns* turns, LocalChatOptions options,
            chat::ChatTemplate without_tools, std::optional<chat::ChatTemplate> with_tools);

  absl::StatusOr<std::string> Render(const agent::ChatRequest& request) const;
  absl::StatusOr<std::vector<engine::Completion>> Generate(
      const engine::GenerationRequest& generation, const agent::ChatRequest& request);

  model::LoadedModel* const loaded_;
  ModelTurns* const turns_;
  const LocalChatOptions options_;
  const chat::ChatTemplate template_;
  const std::optional<chat::ChatTemplate> tool_template_;  // where the model has one for tools
  const std::unique_ptr<engine::Engine> engine_;
};

}  // namespace flowmesh::tasks
