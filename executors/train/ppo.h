// Proximal policy optimisation (TASKS.md 4.7): the policy answers queries, the answers are scored,
// and it learns to answer so that scores rise, as far as a frozen copy of its beginning lets it.
// The loop alone: how answers are made and scored is the caller's business.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/train/adamw.h"
#include "executors/train/flat_batch.h"
#include "executors/train/ppo_math.h"
#include "executors/train/ppo_plan.h"
#include "executors/train/schedule.h"
#include "executors/train/trainer.h"
#include "executors/train/value_head.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

struct PpoOptions {
  BatchOptions batches;          // rows, rank and world_size are the trainer's to set
  std::optional<int64_t> steps;  // micro-batches of rollouts; counts instead of epochs
  int64_t mini_batches = 1;      // optimiser steps of a pass over a local batch
  int64_t ppo_epochs = 4;        // passes over each local batch
  Schedule schedule;             // by update; total_steps is the plan's
  AdamWOptions optimizer = {.max_grad_norm = 0};
  double temperature = 0.7;
  std::vector<text::TokenId> eos_ids;
  double missing_eos_penalty = 0;  // taken off the score of a response without EOS
  EstimateOptions estimate;
  double cliprange = 0.2;
  double cliprange_value = 0.2;
  double vf_coef = 0.1;
  bool scale_loss = false;  // float16: loss scaling from 65536
};

// Whether the options go together. InvalidArgument names the option (those that only PPO has by
// their names in `training`).
absl::Status CheckPpoOptions(const PpoOptions& options);

// What the loop leaves to others. `update` counts from 0.
struct PpoSeams {
  // A response of at least one token to each query, EOS included, without padding. The policy's
  // weights are whole, and its layers run without the trainer's runner. Ranks need not make the
  // same number of forward passes.
  std::function<absl::StatusOr<std::vector<Ids>>(const std::vector<const Ids*>& queries,
                                                 int64_t update)>
      generate;
  // A score for each response. Empty: the value head's number at the response's last token.
  std::function<absl::StatusOr<std::vector<double>>(const std::vector<const Ids*>& queries,
                                                    const std::vector<Ids>& responses)>
      score;
  // The order in which pass `pass` of an update takes the local batch's rows. Empty: random ones,
  // different for each pass and rank, the same for a seed.
  std::function<std::vector<int64_t>(int64_t rows, int64_t update, int64_t pass)> order;
};

// None is owned. `weights` are those of policy and value head (PolicyWeights).
struct PpoModels {
  model::Decoder* policy = nullptr;
  ValueHead* value_head = nullptr;
  model::LayerRunner* runner = nullptr;  // of the policy's layers where gradients are wanted
  TrainedWeights* weights = nullptr;
  model::Decoder* reference = nullptr;  // frozen, of the policy's dtype
};

// One thread at a time.
class PpoTrainer : public TrainingLoop {
 public:
  // `queries`: token ids; not owned.
  PpoTrainer(const PpoOptions& options, const PpoModels& models, PpoSeams seams,
             const std::vector<Ids>* queries, parallel::ProcessGroup* group);

  int64_t total_steps() const override { return plan_.total_updates(); }
  int64_t effective_batch() const override { return plan_.global_batch(); }
  AdamW& optimizer() override { return optimizer_; }

  // A step is an update: `state` counts them, and each gives a line of metrics.
  // Tokens are those of queries and responses in passes that train, so each row counts ppo_epochs
  // times. InvalidArgument: as CheckPpoOptions, or a query without a token. FailedPrecondition: a
  // score, loss or gradient that is not finite, or a response without a token, with the update.
  absl::StatusOr<TrainerState> Run(TrainerState state, const TrainerCallbacks& callbacks) override;

 private:
  struct Rollout;
  struct Batch;
  struct Evaluation;
  struct Report;  // what an update gave, over all ranks

  // Points 1 to 5 of TASKS.md 4.7.
  absl::StatusOr<Rollout> MakeRollout(int64_t update);
  absl::Status Answer(int64_t update, Rollout& rollout);
  void EvaluateResponses(Rollout& rollout);
  absl::Status Score(int64_t update, Rollout& rollout);
  // Point 9.
  absl::Status Optimise(const Rollout& rollout, const Estimates& estimates,
                        const TrainerCallbacks& callbacks, TrainerState& state, Report& report);
  absl::Status Step(const Rollout& rollout, const Estimates& estimates,
                    const std::vector<int64_t>& rows, TrainerState& state, Report& report);
  // Forward and backward of a micro-batch; its statistics, those of kPassMetrics and its tokens.
  std::vector<double> Pass(const Rollout& rollout, const Estimates& estimates,
                           const std::vector<int64_t>& rows, double gradient_scale);

  Batch MakeBatch(const Rollout& rollout, const std::vector<int64_t>& rows, int64_t places) const;
  Evaluation Evaluate(model::Decoder& model, const Batch& batch, bool with_entropy) const;
  // Numbers of those responses as one tensor, on the policy's device.
  at::Tensor Pick(const PlaceRows& numbers, const std::vector<int64_t>& rows) const;
  std::vector<int64_t> Order(int64_t update, int64_t pass) const;
  bool EndsWithEos(const Ids& response) const;
  absl::Status Describe(const Rollout& rollout, Report& report);
  Json Line(const TrainerState& state, const Report& report, double tokens_per_second) const;

  const PpoOptions options_;
  const PpoModels models_;
  const PpoSeams seams_;
  const std::vector<Ids>* const queries_;
  parallel::ProcessGroup* const group_;
  const PpoPlan plan_;
  Schedule schedule_;
  AdamW optimizer_;
};

}  // namespace flowmesh::train
