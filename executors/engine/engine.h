// Text generation with one model: many prompts of different lengths in one flat token batch,
// prefill and decode mixed, keys and values in blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/engine/sampling.h"
#include "executors/model/causal_lm.h"

namespace flowmesh::engine {

struct GenerationRequest {
  std::vector<text::TokenId> prompt_ids;
  SamplingParams params;
  uint64_t item_index = 0;  // index in its own task: with the seed it fixes the random draws
};

struct Completion {
  std::string text;
  std::vector<text::TokenId> token_ids;  // EOS included
  std::string finish_reason;             // `stop` or `length`
};

struct EngineOptions {
  int64_t max_model_len = 0;        // longest prompt plus completion; 0: the model's limit
  int64_t block_tokens = 16;        // tokens per KV block
  int64_t max_batch_tokens = 2048;  // token budget of one forward, at least 1
  int64_t max_sequences = 64;       // sequences in one forward, at least 1
  // Most bytes for keys and values; 0: half of the memory that is free (CPU), or what
  // gpu_memory_utilization leaves beside the weights (GPU). No more is taken than max_sequences of
  // the requests can need.
  uint64_t kv_cache_bytes = 0;
  double gpu_memory_utilization = 0.9;
};

struct GenerationProgress {
  uint64_t finished = 0;  // completions done
  uint64_t total = 0;
  uint64_t completion_tokens = 0;  // so far
  uint64_t prompt_tokens = 0;      // prefilled so far
  uint64_t preemptions = 0;        // sequences that lost their blocks, to be computed anew
};

// Borrows the model and its tokenizer. Keys and values live as long as a call of Generate. One
// thread at a time.
class Engine {
 public:
  static std::unique_ptr<Engine> Create(model::CausalLm* model, const text::Tokenizer* tokenizer,
                                        const EngineOptions& options);
  static std::unique_ptr<Engine> Create(model::LoadedModel* loaded, const EngineOptions& options) {
    return Create(loaded->model.get(), loaded->tokenizer.get(), options);
  }
  virtual ~Engine() = default;

  // Completions in the order of the requests; none depends on the others. Each prompt has at least
  // one token and fewer than max_model_len(): others are the caller's to refuse. `on_progress` is
  // called after each forward pass, from this thread; returning false ends the run with Cancelled.
  // ResourceExhausted: no memory for the keys and values of the longest sequence. Throws
  // c10::Error where libtorch does.
  virtual absl::StatusOr<std::vector<Completion>> Generate(
      const std::vector<GenerationRequest>& requests,
      const std::function<bool(const GenerationProgress&)>& on_progress) = 0;

  // The longest prompt plus completion in tokens.
  virtual int64_t max_model_len() const = 0;
};

}  // namespace flowmesh::engine
