// How much of the gradients' exchange two CPU ranks hide behind a backward pass: steps of work that
// yield gradients from the buffer's end to its begin, timed without an exchange, with the exchange
// alone, and together. `./overlap_bench`: one line of JSON for each exchange.
#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "executors/parallel/gradient_buckets.h"
#include "executors/parallel/test_ranks.h"

namespace flowmesh::parallel {
namespace {

constexpr int64_t kLayers = 24;
constexpr int64_t kLayerSize = 1 << 20;  // 4 MB of gradients each
constexpr int64_t kWidth = 768;          // a layer's work: one product of this size
constexpr int kRounds = 15;
constexpr double kNever = 1e9;

class Backward {
 public:
  void Layer() { at::mm_out(product_, left_, right_); }

 private:
  at::Tensor left_ = at::full({kWidth, kWidth}, 0.5), right_ = at::full({kWidth, kWidth}, 0.25);
  at::Tensor product_ = at::zeros({kWidth, kWidth});
};

// Seconds of one round that all ranks begin and end together.
template <typename Round>
double Time(ProcessGroup& group, Round round) {
  if (!group.Barrier().ok()) std::abort();
  const absl::Duration start = Clock::Real().Monotonic();
  round();
  if (!group.Barrier().ok()) std::abort();
  return absl::ToDoubleSeconds(Clock::Real().Monotonic() - start);
}

std::string Measure(ProcessGroup& group, Exchange exchange) {
  at::set_num_threads(1);
  const at::Tensor gradients = at::zeros({kLayers * kLayerSize});
  GradientBuckets buckets(group, gradients, exchange);
  Backward backward;
  const auto finish = [&] {
    if (!buckets.Finish().ok()) std::abort();
  };
  // The best of many, taken in turns: whatever else runs on the machine only adds.
  double compute = kNever, alone = kNever, both = kNever, waited = kNever;
  for (int i = 0; i < kRounds; ++i) {
    compute = std::min(compute, Time(group, [&] {
                         for (int64_t layer = 0; layer < kLayers; ++layer) backward.Layer();
                       }));
    alone = std::min(alone, Time(group, [&] {
                       buckets.MarkReady(0, gradients.numel());
                       finish();
                     }));
    const double together = Time(group, [&] {
      for (int64_t layer = kLayers - 1; layer >= 0; --layer) {
        backward.Layer();
        buckets.MarkReady(layer * kLayerSize, kLayerSize);
      }
      const absl::Duration computed = Clock::Real().Monotonic();
      finish();
      waited = std::min(waited, absl::ToDoubleSeconds(Clock::Real().Monotonic() - computed));
    });
    both = std::min(both, together);
  }
  if (group.rank() != 0) return "";
  return absl::StrFormat(
      R"({"exchange":"%s","megabytes":%d,"compute_s":%.3f,"exchange_s":%.3f,"both_s":%.3f,)"
      R"("waited_s":%.3f,"not_waited_for":%.2f})"
      "\n",
      exchange == Exchange::kAllReduce ? "all_reduce" : "reduce_scatter",
      gradients.nbytes() / 1000000, compute, alone, both, waited, 1 - waited / alone);
}

std::string MeasureBoth(const GroupOptions& options) {
  return WithGroup(options, [](ProcessGroup& group) {
    return Measure(group, Exchange::kAllReduce) + Measure(group, Exchange::kReduceScatter);
  });
}

const RankFunctionRegistration registration("MeasureBoth", MeasureBoth);

}  // namespace

int MeasureOverlap() {
  std::printf("%s", RunRanks("MeasureBoth", {.world_size = 2}).at(0).output.c_str());
  return 0;
}

}  // namespace flowmesh::parallel

int main() {
  if (flowmesh::parallel::IsRank()) return flowmesh::parallel::RunAsRank();
  return flowmesh::parallel::MeasureOverlap();
}
