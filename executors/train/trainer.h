// The loop that the methods share: batches in their order, passes forward and backward, gradients
// over ranks, the optimiser, the schedule, metrics and checkpoints. What a batch means is a
// recipe's business (sft.h, dpo.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/parallel/process_group.h"
#include "executors/train/adamw.h"
#include "executors/train/batch_plan.h"
#include "executors/train/schedule.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

// A mean over a micro-batch that is spread over ranks.
struct Ratio {
  double sum = 0;
  double count = 0;
};

// What a pass over one micro-batch gave.
struct PassReport {
  double loss = 0;     // its part: the sum over a step's passes and ranks is the step's loss
  int64_t tokens = 0;  // that went through the policy
  std::map<std::string, Ratio> metrics;  // the same names in every pass
};

class Recipe {
 public:
  virtual ~Recipe() = default;

  // Before the passes of a step; `batches` are this rank's.
  virtual absl::Status BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) = 0;
  // Forward and backward of one micro-batch, gradients times `loss_scale`.
  virtual absl::StatusOr<PassReport> Pass(const std::vector<int64_t>& rows, double loss_scale) = 0;
};

// Float16: where the loss scale begins.
inline constexpr double kFirstLossScale = 65536;

// The options of this rank's batches.
BatchOptions OnRank(BatchOptions options, const parallel::ProcessGroup& group);

struct TrainerOptions {
  BatchOptions batches;  // rank and world_size are the group's
  Schedule schedule;     // total_steps is the plan's
  AdamWOptions optimizer;
  int64_t logging_steps = 10;
  bool scale_loss = false;  // float16
  double first_loss_scale = kFirstLossScale;
  std::string tokens_metric;  // name of the running count of tokens in metrics lines; may be empty
};

// What the next metrics line is made of: the steps since the last one.
struct MetricsWindow {
  double loss = 0;  // sum over steps
  int64_t steps = 0;
  int64_t passes = 0;
  std::map<std::string, double> metrics;  // sums over passes of the means over ranks
  double learning_rate = 0;               // of the last step
  double grad_norm = 0;                   // of the last step that was not left out
};

// How far a training is; what a checkpoint keeps of the loop.
struct TrainerState {
  int64_t step = 0;     // steps done
  double epoch = 0;     // epochs done
  int64_t tokens = 0;   // so far, all ranks
  double loss_sum = 0;  // over all steps
  double last_loss = 0;
  double loss_scale = 1;
  int64_t good_steps = 0;  // since the loss scale changed
  std::vector<Json> log;   // the metrics lines
  MetricsWindow window;    // of the trainer
};

// What the loss scale becomes after a step whose gradients were finite or not: half at once when
// they overflow, twice after 2000 good steps. False: they were not finite although the scale is no
// longer above 1, so halving it would go on for ever.
[[nodiscard]] bool UpdateLossScale(bool is_finite, TrainerState& state);

// A step of the optimiser, unless the loss or the gradients are not finite. With `scale_loss` such
// a step is left out and the scale becomes smaller. Errors: FailedPrecondition without it, or where
// the scale cannot become smaller, naming `where` ("step 3"); those of collectives.
absl::StatusOr<StepReport> StepUnlessOverflowed(bool is_loss_finite, double learning_rate,
                                                bool scale_loss, std::string_view where,
                                                AdamW& optimizer, TrainerState& state);

// Called from the training thread; those marked are called on every rank, the others on rank 0.
struct TrainerCallbacks {
  std::function<bool()> is_stopped;  // every rank
  std::function<absl::Status(const Json& line)> on_line;
  std::function<void(const TrainerState&, int64_t total_steps, double tokens_per_second)> on_step;
  std::function<bool(const TrainerState&, int64_t total_steps)> wants_checkpoint;  // every rank
  std::function<absl::Status(const TrainerState&)> save_checkpoint;                // every rank
};

// A training from its first step, or a checkpoint's, to its last.
class TrainingLoop {
 public:
  virtual ~TrainingLoop() = default;

  virtual int64_t total_steps() const = 0;
  virtual int64_t effective_batch() const = 0;  // rows of a step, all ranks
  virtual AdamW& optimizer() = 0;
  // From `state` (a fresh one, or that of a checkpoint whose weights and moments are back in place)
  // to the end. Cancelled: is_stopped() said so. FailedPrecondition: a loss or gradients that are
  // not finite, with the step; where losses are scaled, only when the scale cannot be made smaller.
  // Others: the callbacks', the collectives' and what the loop calls.
  virtual absl::StatusOr<TrainerState> Run(TrainerState state,
                                           const TrainerCallbacks& callbacks) = 0;
};

// The loop over a recipe. One thread at a time.
class Trainer : public TrainingLoop {
 public:
  Trainer(const TrainerOptions& options, Recipe* recipe, TrainedWeights* weights,
          parallel::ProcessGroup* group);

  int64_t total_steps() const override { return plan_.total_steps(); }
  int64_t effective_batch() const override {
    return options_.batches.batch_size * options_.batches.accumulation * group_->world_size();
  }
  AdamW& optimizer() override { return optimizer_; }
  absl::StatusOr<TrainerState> Run(TrainerState state, const TrainerCallbacks& callbacks) override;

 private:
  absl::Status Step(TrainerState& state);
  // The reports of this rank's passes summed over ranks, into the window; gives the step's loss.
  absl::StatusOr<double> Merge(const std::vector<PassReport>& reports, TrainerState& state);
  Json Line(const TrainerState& state, double tokens_per_second) const;

  const TrainerOptions options_;
  Recipe* const recipe_;
  TrainedWeights* const weights_;
  parallel::ProcessGroup* const group_;
  BatchPlan plan_;
  Schedule schedule_;
  AdamW optimizer_;
};

}  // namespace flowmesh::train
