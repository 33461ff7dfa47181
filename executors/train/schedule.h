// Learning rates by step, as HF Trainer's schedules give them.
#pragma once

#include <cstdint>
#include <string_view>

#include "common/status.h"

namespace flowmesh::train {

struct Schedule {
  enum class Kind { kLinear, kCosine, kConstant, kConstantWithWarmup };

  Kind kind = Kind::kLinear;
  double learning_rate = 0;  // the highest
  int64_t warmup_steps = 0;
  double warmup_ratio = 0;  // of all steps; counts where warmup_steps is 0
  int64_t total_steps = 1;

  // Before the first use, once the number of steps is known.
  void SetTotalSteps(int64_t steps);

  // The rate of a step, counted from 0.
  double At(int64_t step) const;
};

}  // namespace flowmesh::train
