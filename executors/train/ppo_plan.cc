#include "executors/train/ppo_plan.h"

#include <algorithm>
#include <cmath>

namespace flowmesh::train {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

PpoPlan::PpoPlan(const BatchOptions& batches, std::optional<int64_t> steps)
    : batches_(batches), local_batch_(batches.batch_size * batches.accumulation) {
  const int64_t episodes =
      steps ? *steps * batches.batch_size
            : static_cast<int64_t>(std::floor(batches.epochs * static_cast<double>(batches.rows)));
  total_updates_ = batches.max_steps ? *batches.max_steps : CeilDivide(episodes, global_batch());
}

std::vector<int64_t> PpoPlan::Order(int64_t pass) const {
  return RandomOrder(batches_.rows, batches_.seed + static_cast<uint64_t>(pass));
}

std::vector<int64_t> PpoPlan::Rows(int64_t update) const {
  const int64_t world = batches_.world_size;
  if (batches_.rows >= local_batch_) {
    // Whole local batches only, dealt to the ranks in rounds; a last round that has too few of them
    // is filled up with those of the pass's start.
    const int64_t batches = batches_.rows / local_batch_;
    const int64_t rounds = CeilDivide(batches, world);
    const int64_t batch = (update % rounds * world + batches_.rank) % batches;
    const std::vector<int64_t> order = Order(update / rounds);
    const auto begin = order.begin() + batch * local_batch_;
    return {begin, begin + local_batch_};
  }
  // Passes of its own for each local batch; what the last of them leaves over is dropped.
  const int64_t passes = CeilDivide(local_batch_, batches_.rows);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < passes; ++i) {
    const std::vector<int64_t> order = Order((update * world + batches_.rank) * passes + i);
    rows.insert(rows.end(), order.begin(), order.end());
  }
  rows.resize(static_cast<size_t>(local_batch_));
  return rows;
}

double PpoPlan::EpochsAfter(int64_t updates) const {
  return static_cast<double>(updates * global_batch()) / static_cast<double>(batches_.rows);
}

}  // namespace flowmesh::train
