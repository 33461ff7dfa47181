#include "executors/train/batch_plan.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randperm.h>

#include <algorithm>
#include <cmath>

namespace flowmesh::train {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::vector<int64_t> RandomOrder(int64_t rows, uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const at::Tensor order = at::randperm(rows, generator, at::TensorOptions(at::kLong));
  const int64_t* begin = order.const_data_ptr<int64_t>();
  return {begin, begin + rows};
}

BatchPlan::BatchPlan(const BatchOptions& options) : options_(options) {
  const int64_t batches = CeilDivide(options.rows, options.batch_size);
  batches_per_epoch_ = CeilDivide(batches, options.world_size);
  steps_per_epoch_ = std::max<int64_t>(1, CeilDivide(batches_per_epoch_, options.accumulation));
  total_steps_ =
      options.max_steps
          ? *options.max_steps
          : static_cast<int64_t>(std::ceil(options.epochs * static_cast<double>(steps_per_epoch_)));
}

std::vector<std::vector<int64_t>> BatchPlan::RankBatches(int64_t epoch) const {
  const std::vector<int64_t> order =
      RandomOrder(options_.rows, options_.seed + static_cast<uint64_t>(epoch));
  const int64_t size = options_.batch_size, world = options_.world_size;
  // With several ranks, rounds of full batches: what is missing comes from the epoch's start.
  const int64_t rows = world == 1 ? options_.rows : batches_per_epoch_ * world * size;
  std::vector<std::vector<int64_t>> batches;
  for (int64_t batch = options_.rank; batch * size < rows; batch += world) {
    std::vector<int64_t>& taken = batches.emplace_back();
    for (int64_t i = batch * size; i < std::min(rows, (batch + 1) * size); ++i) {
      taken.push_back(order[static_cast<size_t>(i % options_.rows)]);
    }
  }
  return batches;
}

StepBatches BatchPlan::Step(int64_t step) {
  const int64_t epoch = step / steps_per_epoch_;
  if (epoch != epoch_) {
    batches_ = RankBatches(epoch);
    epoch_ = epoch;
  }
  const int64_t begin = step % steps_per_epoch_ * options_.accumulation;
  const int64_t end = std::min(begin + options_.accumulation, batches_per_epoch_);
  StepBatches result;
  result.batches.assign(batches_.begin() + begin, batches_.begin() + end);
  result.epoch = static_cast<double>(epoch) +
                 static_cast<double>(end) / static_cast<double>(batches_per_epoch_);
  return result;
}

}  // namespace flowmesh::train
