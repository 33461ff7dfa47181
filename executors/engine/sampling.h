// From logits to the next token (TASKS.md 4.1).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "executors/text/tokenizer.h"

namespace flowmesh::engine {

struct SamplingParams {
  int64_t max_tokens = 512;
  double temperature = 0.7;  // below 1e-5: greedy
  double top_p = 0.95;
  int64_t top_k = -1;  // 0 or below: off
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  bool greedy = false;  // do_sample: false
  std::vector<std::string> stop;
  uint64_t seed = 0;

  bool is_greedy() const { return greedy || temperature < 1e-5; }
};

// Draws the tokens of one sequence. Its generator is made from the seed and the item's index, so a
// sequence's draws never depend on its neighbours. Not thread-safe.
class Sampler {
 public:
  Sampler(const SamplingParams& params, uint64_t item_index, std::span<const text::TokenId> prompt);
  ~Sampler();

  // `logits`: [vocab] float32, changed in place. Remembers the token it returns.
  text::TokenId Next(std::span<float> logits);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace flowmesh::engine
