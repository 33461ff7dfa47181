#include <ATen/Parallel.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "executors/kernels/linear.h"

namespace {

// Median seconds of one call, over a set of weights larger than the caches.
double Seconds(const std::function<void(int)>& call) {
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    call(i);
    times.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + 7, times.end());
  return times[7];
}

}  // namespace

int main() {
  const c10::InferenceMode guard;
  at::set_num_threads(2);
  for (const auto dtype : {at::kBFloat16, at::kFloat}) {
    for (const auto& [out, in] :
         {std::pair{262144, 640}, std::pair{2048, 640}, std::pair{640, 2048}}) {
      const int copies = out > 100000 ? 1 : 64;
      std::vector<at::Tensor> weights;
      for (int i = 0; i < copies; ++i) weights.push_back(at::randn({out, in}).to(dtype));
      for (const int rows : {1, 2, 4, 8, 12, 16, 24, 32}) {
        const at::Tensor x = at::randn({rows, in}).to(dtype);
        const double ours = Seconds([&](int) {
          for (const auto& w : weights) flowmesh::kernels::Linear(x, w, {});
        });
        const double theirs = Seconds([&](int) {
          for (const auto& w : weights) at::linear(x, w);
        });
        const double bytes = double(copies) * out * in * (dtype == at::kFloat ? 4 : 2);
        std::printf(
            "%s [%d, %d] rows %2d: ours %6.1f GB/s %7.1f GFLOP/s, at::linear %6.1f GB/s, ratio "
            "%.2f\n",
            dtype == at::kFloat ? "fp32" : "bf16", out, in, rows, bytes / ours / 1e9,
            bytes / ours / 1e9 * rows * (dtype == at::kFloat ? 0.5 : 1), bytes / theirs / 1e9,
            theirs / ours);
      }
    }
  }
}
