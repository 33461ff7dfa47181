// Which rows a rank trains on in which step, and how many steps there are (TASKS.md 4.3): the order
// of HF Trainer with Accelerate's sharding, but for the permutation of an epoch.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace flowmesh::train {

struct BatchOptions {
  int64_t rows = 0;
  int64_t batch_size = 1;    // rows of a micro-batch
  int64_t accumulation = 1;  // micro-batches of a step
  double epochs = 1.0;
  std::optional<int64_t> max_steps;  // counts instead of the epochs
  uint64_t seed = 42;
  int rank = 0;
  int world_size = 1;
};

// The micro-batches of one optimiser step on this rank.
struct StepBatches {
  std::vector<std::vector<int64_t>> batches;  // row indexes; at least one batch
  double epoch = 0;                           // epochs done after this step
};

// Immutable but for the order of the epoch that it works on; one thread at a time.
class BatchPlan {
 public:
  explicit BatchPlan(const BatchOptions& options);

  int64_t total_steps() const { return total_steps_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }
  // `step` counts from 0.
  StepBatches Step(int64_t step);

 private:
  // All batches of this rank in an epoch.
  std::vector<std::vector<int64_t>> RankBatches(int64_t epoch) const;

  const BatchOptions options_;
  int64_t batches_per_epoch_ = 0;  // of a rank
  int64_t steps_per_epoch_ = 0;
  int64_t total_steps_ = 0;
  int64_t epoch_ = -1;  // of batches_
  std::vector<std::vector<int64_t>> batches_;
};

// torch.randperm(rows) of a CPU generator with that seed.
std::vector<int64_t> RandomOrder(int64_t rows, uint64_t seed);

}  // namespace flowmesh::train
