// One request on its way through the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "executors/engine/engine.h"
#include "executors/engine/scheduler.h"
#include "executors/engine/stop_strings.h"

namespace flowmesh::engine {

// Borrows request and model. Not thread-safe, but different sequences may be sampled at once.
class Sequence : public SequenceState {
 public:
  // `max_model_len`: longest prompt plus completion.
  Sequence(const GenerationRequest& request, const model::LoadedModel& model,
           int64_t max_model_len);

  // Draws the next token from the logits of its last one ([vocab] float32, changed in place).
  text::TokenId Sample(std::span<float> logits) { return sampler_.Next(logits); }

  // Appends a token. True when the sequence has ended by it (TASKS.md 4.1): a stop string comes
  // first, then the limit on tokens, then EOS.
  bool Accept(text::TokenId token);

  int64_t prompt_tokens() const { return prompt_tokens_; }
  Completion TakeCompletion();

 private:
  const model::LoadedModel& model_;
  const int64_t prompt_tokens_;
  const int64_t max_length_;  // prompt and completion
  Sampler sampler_;
  text::IncrementalDecoder decoder_;
  StoppableText text_;
  std::string finish_reason_;
};

// The most tokens that prompt and completion of a request take together.
int64_t LongestLength(const GenerationRequest& request, int64_t max_model_len);

}  // namespace flowmesh::engine
