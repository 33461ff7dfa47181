// Which queries a rank rolls out in which update of PPO, and how many updates there are (TASKS.md
// 4.3 and 4.7).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "executors/train/batch_plan.h"

namespace flowmesh::train {

// Immutable; any thread.
class PpoPlan {
 public:
  // A rank's local batch has batch_size * accumulation rows. The number of updates is
  // `batches.max_steps`; else what `steps` micro-batches, or so many epochs, need.
  PpoPlan(const BatchOptions& batches, std::optional<int64_t> steps);

  int64_t total_updates() const { return total_updates_; }
  int64_t local_batch() const { return local_batch_; }
  int64_t global_batch() const { return local_batch_ * batches_.world_size; }
  // The rows of this rank's local batch; `update` counts from 0.
  std::vector<int64_t> Rows(int64_t update) const;
  // Passes over the rows after so many updates, as episodes count them.
  double EpochsAfter(int64_t updates) const;

 private:
  std::vector<int64_t> Order(int64_t pass) const;

  const BatchOptions batches_;
  const int64_t local_batch_;
  int64_t total_updates_ = 0;
};

}  // namespace flowmesh::train
