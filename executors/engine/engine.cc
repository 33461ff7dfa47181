#include "executors/engine/engine.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/engine/kv_cache.h"
#include "executors/engine/memory.h"
#include "executors/engine/paged_attention.h"
#include "executors/engine/scheduler.h"
#include "executors/engine/stop_strings.h"

namespace flowmesh::engine {
namespace {

bool Contains(const std::vector<text::TokenId>& ids, text::TokenId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// One request on its way.
class Generation : public SequenceState {
 public:
  Generation(size_t index, const GenerationRequest& request, int64_t max_length,
             const text::Tokenizer* tokenizer)
      : index_(index),
        max_length_(max_length),
        sampler_(request.params, request.item_index, request.prompt_ids),
        decoder_(tokenizer, request.prompt_ids),
        text_(request.params.stop) {
    tokens = request.prompt_ids;
    prompt_length = length();
  }

  size_t index() const { return index_; }  // of its request

  // `logits`: [vocab] of the last token, changed in place. Different sequences may be sampled at
  // the same time.
  text::TokenId Sample(std::span<float> logits) { return sampler_.Next(logits); }

  // Takes the next token in. True when the sequence ends with it (TASKS.md 4.1).
  bool Append(text::TokenId id, const std::vector<text::TokenId>& eos_ids) {
    tokens.push_back(id);
    completion_.token_ids.push_back(id);
    const bool is_full = length() >= max_length_;
    const bool is_eos = Contains(eos_ids, id);
    const bool is_stopped = !is_eos && text_.Append(decoder_.Append(id));
    if (is_stopped || (is_eos && !is_full)) completion_.finish_reason = "stop";
    if (completion_.finish_reason.empty() && is_full) completion_.finish_reason = "length";
    return !completion_.finish_reason.empty();
  }

  // Marks tokens as computed; returns how many of the prompt were so for the first time.
  uint64_t Computed(const Chunk& chunk) {
    computed = chunk.begin + chunk.count;
    const int64_t prefilled = std::min(computed, prompt_length);
    const int64_t fresh = std::max<int64_t>(0, prefilled - prefilled_);
    prefilled_ += fresh;
    return static_cast<uint64_t>(fresh);
  }

  Completion TakeCompletion() {
    completion_.text = text_.text();
    tokens = {};
    return std::move(completion_);
  }

 private:
  const size_t index_;
  const int64_t max_length_;
  int64_t prefilled_ = 0;
  Sampler sampler_;
  text::IncrementalDecoder decoder_;
  StoppableText text_;
  Completion completion_;
};

// The tensors of one pass over `chunks`.
model::ForwardInput MakeInput(const std::vector<Chunk>& chunks, at::Device device) {
  int64_t tokens = 0, rows = 0;
  for (const Chunk& chunk : chunks) {
    tokens += chunk.count;
    rows += chunk.is_last() ? 1 : 0;
  }
  model::ForwardInput input;
  for (at::Tensor* tensor : {&input.token_ids, &input.positions, &input.lengths}) {
    *tensor = at::empty({tokens}, at::kLong);
  }
  input.logit_rows = at::empty({rows}, at::kLong);
  auto* ids = input.token_ids.mutable_data_ptr<int64_t>();
  auto* positions = input.positions.mutable_data_ptr<int64_t>();
  auto* lengths = input.lengths.mutable_data_ptr<int64_t>();
  auto* last = input.logit_rows.mutable_data_ptr<int64_t>();
  int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    for (int64_t i = chunk.begin; i < chunk.begin + chunk.count; ++i, ++row) {
      ids[row] = chunk.sequence->tokens[static_cast<size_t>(i)];
      positions[row] = i;
      // Also when it is computed anew: as long as it was when the token came.
      lengths[row] = std::max(chunk.sequence->prompt_length, i + 1);
    }
    if (chunk.is_last()) *last++ = row - 1;
  }
  for (at::Tensor* tensor :
       {&input.token_ids, &input.positions, &input.lengths, &input.logit_rows}) {
    *tensor = tensor->to(device);
  }
  return input;
}

class EngineImpl : public Engine {
 public:
  EngineImpl(model::CausalLm* model, const text::Tokenizer* tokenizer, const EngineOptions& options)
      : model_(*model), tokenizer_(*tokenizer), options_(options) {
    const int64_t limit = model_.info().max_positions;
    if (options_.max_model_len == 0) options_.max_model_len = limit;
  }

  absl::StatusOr<std::vector<Completion>> Generate(
      const std::vector<GenerationRequest>& requests,
      const std::function<bool(const GenerationProgress&)>& on_progress) override;

  int64_t max_model_len() const override { return options_.max_model_len; }

 private:
  // One Generate call.
  struct Run {
    Scheduler scheduler;
    KvCache cache;
    std::deque<Generation> generations;
    std::vector<Completion> completions;  // by request, filled as they end
    GenerationProgress progress;
  };

  int64_t MaxLength(const GenerationRequest& request) const {
    const auto prompt = static_cast<int64_t>(request.prompt_ids.size());
    // Compared without the sum: max_tokens may be huge.
    return request.params.max_tokens > options_.max_model_len - prompt
               ? options_.max_model_len
               : prompt + request.params.max_tokens;
  }
  absl::StatusOr<KvCache> AllocateCache(const std::vector<GenerationRequest>& requests) const;
  std::vector<uint64_t> CacheBudgets() const;
  void Step(Run& run);

  model::CausalLm& model_;
  const text::Tokenizer& tokenizer_;
  EngineOptions options_;
};

// The bytes that keys and values may take, and the smaller amounts to try when those cannot be had.
std::vector<uint64_t> EngineImpl::CacheBudgets() const {
  if (options_.kv_cache_bytes > 0) return {options_.kv_cache_bytes};
  if (model_.device().is_cpu()) return {FreeHostBytes() / 2};
  const GpuMemory memory = ReadGpuMemory(model_.device());
  std::vector<uint64_t> budgets;
  for (const double less : {0.0, 0.05, 0.10, 0.15}) {
    const double lowest = std::min(options_.gpu_memory_utilization, 0.3);
    budgets.push_back(GpuShare(memory, std::max(lowest, options_.gpu_memory_utilization - less)));
  }
  return budgets;
}

absl::StatusOr<KvCache> EngineImpl::AllocateCache(
    const std::vector<GenerationRequest>& requests) const {
  std::vector<int64_t> lengths;
  for (const GenerationRequest& request : requests) lengths.push_back(MaxLength(request));
  std::sort(lengths.begin(), lengths.end(), std::greater<>());
  int64_t wanted = 0;
  for (size_t i = 0; i < lengths.size() && i < static_cast<size_t>(options_.max_sequences); ++i) {
    wanted += BlocksFor(lengths[i], options_.block_tokens);
  }
  const int64_t needed = BlocksFor(lengths.front(), options_.block_tokens);
  const uint64_t block_bytes = KvCache::BytesPerBlock(model_, options_.block_tokens);
  std::string tries;
  for (const uint64_t budget : CacheBudgets()) {
    const int64_t num_blocks = std::min(wanted, static_cast<int64_t>(budget / block_bytes));
    absl::StrAppend(&tries, tries.empty() ? "" : ", ", budget >> 20, " MiB");
    if (num_blocks < needed) continue;
    try {
      return KvCache(model_, num_blocks, options_.block_tokens);
    } catch (const c10::OutOfMemoryError&) {
      absl::StrAppend(&tries, " (out of memory)");
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "out of memory: keys and values of a sequence of ", lengths.front(), " tokens take ",
      (static_cast<uint64_t>(needed) * block_bytes) >> 20, " MiB, tried with ", tries,
      "; lower inference.max_tokens or model.vllm.max_model_len"));
}

void EngineImpl::Step(Run& run) {
  const std::vector<Chunk> chunks = run.scheduler.Next();
  PagedAttention attention(&run.cache, chunks);
  const at::Tensor logits =
      model_.Forward(MakeInput(chunks, model_.device()), attention).to(at::kCPU).contiguous();

  std::vector<Generation*> sampled;  // by row of the logits
  for (const Chunk& chunk : chunks) {
    auto* generation = static_cast<Generation*>(chunk.sequence);
    if (chunk.is_last()) sampled.push_back(generation);
    run.progress.prompt_tokens += generation->Computed(chunk);
  }
  const int64_t vocab = logits.size(1);
  std::vector<text::TokenId> next(sampled.size());
  at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
    // One row at a time in float32: all of them at once may be large.
    at::Tensor row = at::empty({vocab}, at::kFloat);
    for (int64_t i = begin; i < end; ++i) {
      row.copy_(logits[i]);
      next[i] = sampled[i]->Sample({row.mutable_data_ptr<float>(), static_cast<size_t>(vocab)});
    }
  });
  for (size_t i = 0; i < sampled.size(); ++i) {
    ++run.progress.completion_tokens;
    if (!sampled[i]->Append(next[i], model_.info().eos_ids)) continue;
    run.scheduler.Finish(sampled[i]);
    run.completions[sampled[i]->index()] = sampled[i]->TakeCompletion();
    ++run.progress.finished;
  }
  run.progress.preemptions = static_cast<uint64_t>(run.scheduler.num_preemptions());
}

absl::StatusOr<std::vector<Completion>> EngineImpl::Generate(
    const std::vector<GenerationRequest>& requests,
    const std::function<bool(const GenerationProgress&)>& on_progress) {
  if (requests.empty()) return std::vector<Completion>();
  const c10::InferenceMode inference;
  ASSIGN_OR_RETURN(KvCache cache, AllocateCache(requests));
  Run run{.scheduler = Scheduler({.block_tokens = options_.block_tokens,
                                  .num_blocks = cache.num_blocks(),
                                  .max_batch_tokens = options_.max_batch_tokens,
                                  .max_sequences = options_.max_sequences}),
          .cache = std::move(cache)};
  run.completions.resize(requests.size());
  run.progress.total = requests.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    run.generations.emplace_back(i, requests[i], MaxLength(requests[i]), &tokenizer_);
    run.scheduler.Add(&run.generations.back());
  }
  while (!run.scheduler.is_idle()) {
    Step(run);
    if (!on_progress(run.progress)) return absl::CancelledError("the task was cancelled");
  }
  return std::move(run.completions);
}

}  // namespace

std::unique_ptr<Engine> Engine::Create(model::CausalLm* model, const text::Tokenizer* tokenizer,
                                       const EngineOptions& options) {
  return std::make_unique<EngineImpl>(model, tokenizer, options);
}

}  // namespace flowmesh::engine
