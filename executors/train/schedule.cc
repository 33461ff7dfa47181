#include "executors/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace flowmesh::train {

void Schedule::SetTotalSteps(int64_t steps) {
  total_steps = steps;
  if (warmup_steps == 0) {
    warmup_steps = static_cast<int64_t>(std::ceil(static_cast<double>(steps) * warmup_ratio));
  }
}

double Schedule::At(int64_t step) const {
  if (kind == Kind::kConstant) return learning_rate;
  const auto s = static_cast<double>(step), warmup = static_cast<double>(warmup_steps);
  if (step < warmup_steps) return learning_rate * s / std::max(1.0, warmup);
  const double rest = std::max(1.0, static_cast<double>(total_steps - warmup_steps));
  switch (kind) {
    case Kind::kLinear:
      return learning_rate * std::max(0.0, static_cast<double>(total_steps) - s) / rest;
    case Kind::kCosine:
      return learning_rate *
             std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * (s - warmup) / rest)));
    case Kind::kConstant:
    case Kind::kConstantWithWarmup:
      break;
  }
  return learning_rate;
}

}  // namespace flowmesh::train
