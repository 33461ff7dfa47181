#include "executors/train/adamw.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <cmath>

namespace flowmesh::train {
namespace {

// Elements that are widened at a time where gradients are no float32: on a CPU little memory, and
// still in the cache when they are used; on a GPU few kernels.
int64_t WidenedAtATime(const at::Tensor& gradient) {
  return int64_t{1} << (gradient.is_cuda() ? 26 : 20);
}

}  // namespace

absl::StatusOr<double> AdamW::GradientNorm() {
  at::Tensor squares;  // on the gradients' device, which is waited for once
  for (const WeightShard& shard : weights_->shards()) {
    const int64_t all = shard.gradient.numel(), most = WidenedAtATime(shard.gradient);
    // In pieces: a float32 sum of hundreds of millions of squares would lose digits.
    for (int64_t begin = 0; begin < all; begin += most) {
      const at::Tensor piece = shard.gradient.narrow(0, begin, std::min(most, all - begin));
      const at::Tensor square = at::linalg_vector_norm(piece, 2, std::nullopt, false, at::kFloat)
                                    .to(at::kDouble)
                                    .square();
      squares = squares.defined() ? squares + square : square;
    }
  }
  ASSIGN_OR_RETURN(const double sum,
                   weights_->SumOverShards(squares.defined() ? squares.item<double>() : 0.0));
  return std::sqrt(sum);
}

void AdamW::Update(WeightShard& shard, int64_t begin, int64_t count, double weight_decay,
                   double learning_rate, const at::Tensor& divisor) {
  const bool is_wide = shard.gradient.scalar_type() == at::kFloat;
  const int64_t most = is_wide ? std::max<int64_t>(count, 1) : WidenedAtATime(shard.gradient);
  const at::Tensor steps = at::scalar_tensor(static_cast<double>(steps_), divisor.options());
  for (const int64_t end = begin + count; begin < end; begin += most) {
    const auto piece = [&](const at::Tensor& tensor) {
      return tensor.narrow(0, begin, std::min(most, end - begin));
    };
    const at::Tensor master = piece(shard.master), gradient = piece(shard.gradient);
    at::_fused_adamw_({master}, {is_wide ? gradient : gradient.to(at::kFloat)},
                      {piece(shard.exp_avg)}, {piece(shard.exp_avg_sq)}, {}, {steps}, learning_rate,
                      options_.beta1, options_.beta2, weight_decay, options_.epsilon,
                      /*amsgrad=*/false, /*maximize=*/false, divisor);
    if (!shard.compute.is_alias_of(shard.master)) piece(shard.compute).copy_(master);
  }
}

absl::StatusOr<StepReport> AdamW::Step(double learning_rate, double loss_scale) {
  const at::NoGradGuard no_grad;
  StepReport report;
  ASSIGN_OR_RETURN(const double scaled_norm, GradientNorm());
  report.grad_norm = scaled_norm / loss_scale;
  report.is_finite = std::isfinite(report.grad_norm);
  if (!report.is_finite) return report;
  double factor = 1.0;
  if (options_.max_grad_norm > 0) {
    factor = std::min(1.0, options_.max_grad_norm / (report.grad_norm + 1e-6));
  }
  ++steps_;
  for (WeightShard& shard : weights_->shards()) {
    const at::Tensor divisor =
        at::scalar_tensor(loss_scale / factor, shard.master.options().dtype(at::kFloat));
    const int64_t all = shard.master.numel();
    Update(shard, 0, shard.decayed, options_.weight_decay, learning_rate, divisor);
    Update(shard, shard.decayed, all - shard.decayed, 0.0, learning_rate, divisor);
    weights_->Share(shard);
  }
  return report;
}

}  // namespace flowmesh::train
