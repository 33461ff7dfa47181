// Direct preference optimisation (TASKS.md 4.6): the policy is to prefer the chosen answer of each
// pair, as far as a frozen copy of its beginning lets it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/train/flat_batch.h"
#include "executors/train/trainer.h"

namespace flowmesh::train {

// Prompt and answer as one sequence, cut to the limits.
struct Answer {
  Ids ids;
  int64_t prompt_tokens = 0;  // of `ids` that are the prompt's
};
struct PreferencePair {
  Answer chosen, rejected;
};

struct DpoLimits {
  int64_t max_prompt_length = 512;  // the end of a longer prompt is kept
  int64_t max_length = 1024;        // likewise of prompt and answer
};

// Texts as TASKS.md 4.6 encodes them: without special tokens, one EOS after each answer.
PreferencePair MakePair(const std::string& prompt, const std::string& chosen,
                        const std::string& rejected, const text::Tokenizer& tokenizer,
                        text::TokenId eos, const DpoLimits& limits);

struct DpoOptions {
  double beta = 0.1;
  double label_smoothing = 0.0;
};

class DpoRecipe : public Recipe {
 public:
  DpoRecipe(model::Decoder* model, const std::vector<PreferencePair>* pairs,
            const DpoOptions& options)
      : model_(model), pairs_(pairs), options_(options) {}

  // The reference's log-probabilities of all answers. The reference is a frozen copy of the weights
  // that training begins with, so the model itself gives them, before the first step: a second one
  // never takes memory. The ranks share the work in groups of `batch_size` pairs. The model's
  // layers have the runner that trains them, with the hooks of `weights`. `on_progress` may say
  // Cancelled. A resumed training calls this before the checkpoint's weights are put in place.
  absl::Status Prepare(int64_t batch_size, TrainedWeights& weights, parallel::ProcessGroup& group,
                       const std::function<absl::Status(int64_t done, int64_t total)>& on_progress);

  absl::Status BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) override;
  absl::StatusOr<PassReport> Pass(const std::vector<int64_t>& rows, double loss_scale) override;

 private:
  struct Scored {
    at::Tensor log_probs;  // [2 * pairs] sums over each answer: chosen ones, then rejected ones
    int64_t tokens = 0;
    // The backward pass runs layers anew, which need it.
    std::unique_ptr<model::Attention> attention;
  };
  Scored Score(const std::vector<int64_t>& rows) const;

  model::Decoder* const model_;
  const std::vector<PreferencePair>* const pairs_;
  const DpoOptions options_;
  at::Tensor reference_;  // [2, pairs] float32 on the model's device
  double share_ = 1.0;    // of a pass in its step: 1 / (passes * ranks)
};

}  // namespace flowmesh::train
