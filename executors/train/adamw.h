// AdamW (decoupled weight decay, bias correction) with clipping by the global norm, on the shards
// of the trained weights. Formulas and rounding are those of torch.optim.AdamW(fused=True) and
// torch.nn.utils.clip_grad_norm_.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
};

struct StepReport {
  double grad_norm = 0;   // L2, before clipping, over all ranks
  bool is_finite = true;  // false: nothing was changed
};

// One thread at a time.
class AdamW {
 public:
  AdamW(const AdamWOptions& options, TrainedWeights* weights)
      : options_(options), weights_(weights) {}

  // One step with the shards' gradients divided by `loss_scale`; what has changed is shared among
  // the ranks. Errors: those of collectives.
  absl::StatusOr<StepReport> Step(double learning_rate, double loss_scale);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  absl::StatusOr<double> GradientNorm();
  void Update(WeightShard& shard, int64_t begin, int64_t count, double weight_decay,
              double learning_rate, const at::Tensor& divisor);

  const AdamWOptions options_;
  TrainedWeights* const weights_;
  int64_t steps_ = 0;
};

}  // namespace flowmesh::train
