// A chat model that runs in this process: the engine of this worker behind the seam of agents.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "executors/agent/chat_model.h"
#include "executors/chat/chat_template.h"
#include "executors/engine/engine.h"

namespace flowmesh::tasks {

struct LocalChatOptions {
  engine::SamplingParams params;  // max_tokens: of one reply, less where no more fit
  engine::EngineOptions engine;
  std::string chat_template;                 // Jinja source; empty: the model's own
  Json template_variables = Json::object();  // chat_template_kwargs
};

// Borrows the model. Calls of several threads are answered one after the other.
class LocalChat : public agent::ChatModel {
 public:
  // FailedPrecondition: the model has no chat template. InvalidArgument: one that cannot be read.
  static absl::StatusOr<std::unique_ptr<LocalChat>> Make(model::LoadedModel* loaded,
                                                         LocalChatOptions options);

  // InvalidArgument: what the template says of the messages, or a conversation that is too long.
  absl::StatusOr<agent::ChatReply> Chat(const agent::ChatRequest& request) override;

 private:
  LocalChat(model::LoadedModel* loaded, LocalChatOptions options, chat::ChatTemplate parsed);

  absl::StatusOr<std::string> Render(const agent::ChatRequest& request) const;
  // Until the engine is this call's alone.
  absl::Status Enter(const agent::ChatRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);
  void Leave() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<engine::Completion>> Generate(
      const engine::GenerationRequest& generation, const agent::ChatRequest& request);

  model::LoadedModel* const loaded_;
  const LocalChatOptions options_;
  const chat::ChatTemplate template_;
  const std::unique_ptr<engine::Engine> engine_;
  absl::Mutex mutex_;
  bool is_busy_ ABSL_GUARDED_BY(mutex_) = false;  // the engine
};

}  // namespace flowmesh::tasks
