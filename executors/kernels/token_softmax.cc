#include "executors/kernels/token_softmax.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "executors/kernels/portable.h"

namespace flowmesh::kernels {
namespace {

struct RowResult {
  float log_prob = 0, entropy = 0;
  bool is_best = false;
};

FLOWMESH_INLINE RowResult VisitRow(float* x, int64_t width, int64_t target,
                                   float inverse_temperature, const float* factor) {
  float most = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < width; ++i) most = std::max(most, x[i]);
  const float wanted = x[target];
  float sum = 0, weighted = 0;
#pragma omp simd reduction(+ : sum, weighted)
  for (int64_t i = 0; i < width; ++i) {
    const float above = (x[i] - most) * inverse_temperature;
    const float e = Exp(above);
    sum += e;
    weighted += e * above;
  }
  const float log_sum = std::log(sum);
  if (factor != nullptr) {
    const float scale = *factor * inverse_temperature / sum;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      x[i] = scale * Exp((x[i] - most) * inverse_temperature);
    }
    const float p = std::exp((wanted - most) * inverse_temperature) / sum;
    x[target] = *factor * inverse_temperature * (p - 1.0f);
  }
  return {(wanted - most) * inverse_temperature - log_sum, log_sum - weighted / sum,
          wanted >= most};
}

struct Rows {
  int64_t width;
  const int64_t* targets;
  const float* factors;  // may be null
  float inverse_temperature;
  float* log_probs;
  float* entropy;
  bool* is_best;
};

FLOWMESH_INLINE void VisitOne(float* x, const Rows& rows, int64_t r) {
  const RowResult result = VisitRow(x, rows.width, rows.targets[r], rows.inverse_temperature,
                                    rows.factors == nullptr ? nullptr : rows.factors + r);
  rows.log_probs[r] = result.log_prob;
  rows.entropy[r] = result.entropy;
  rows.is_best[r] = result.is_best;
}
FLOWMESH_EVERY_CPU void VisitRows(float* x, const Rows& rows, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) VisitOne(x + r * rows.width, rows, r);
}
// By way of `wide`, a row in float32.
FLOWMESH_EVERY_CPU void VisitRows(uint16_t* x, const Rows& rows, int64_t begin, int64_t end,
                                  float* wide) {
  for (int64_t r = begin; r < end; ++r) {
    uint16_t* row = x + r * rows.width;
#pragma omp simd
    for (int64_t i = 0; i < rows.width; ++i) wide[i] = Load(row, i);
    VisitOne(wide, rows, r);
    if (rows.factors == nullptr) continue;
#pragma omp simd
    for (int64_t i = 0; i < rows.width; ++i) Store(row + i, wide[i]);
  }
}

// The same in libtorch's operators, for any device and type.
TokenSoftmaxRows OfOperators(at::Tensor& logits, const at::Tensor& targets, double temperature,
                             const at::Tensor& factors, bool with_entropy) {
  const at::Tensor wanted = targets.unsqueeze(1);
  TokenSoftmaxRows rows;
  rows.is_best = (logits.gather(1, wanted) >= logits.amax(-1, /*keepdim=*/true)).squeeze(1);
  at::Tensor scaled = logits.to(at::kFloat);
  if (temperature != 1) scaled = scaled / temperature;
  at::Tensor log_probs = at::log_softmax(scaled, -1);
  scaled = at::Tensor();
  rows.log_probs = log_probs.gather(1, wanted).squeeze(1);
  if (with_entropy) rows.entropy = (log_probs.exp() * log_probs).sum(-1).neg_();
  if (!factors.defined()) return rows;
  const at::Tensor each = (factors / temperature).unsqueeze(1);
  at::Tensor gradient = log_probs.exp_().mul_(each);
  gradient.scatter_add_(1, wanted, -each);
  logits.copy_(gradient);
  return rows;
}

}  // namespace

TokenSoftmaxRows TokenSoftmax(at::Tensor& logits, const at::Tensor& targets, double temperature,
                              const at::Tensor& factors, bool with_entropy) {
  const at::ScalarType dtype = logits.scalar_type();
  if (!logits.is_cpu() || (dtype != at::kFloat && dtype != at::kBFloat16)) {
    return OfOperators(logits, targets, temperature, factors, with_entropy);
  }
  const int64_t count = logits.size(0);
  const at::TensorOptions options(at::kFloat);
  TokenSoftmaxRows result = {at::empty({count}, options), at::empty({count}, options),
                             at::empty({count}, options.dtype(at::kBool))};
  const at::Tensor places = targets.contiguous();
  const at::Tensor each = factors.defined() ? factors.contiguous() : factors;
  const Rows rows = {.width = logits.size(1),
                     .targets = places.const_data_ptr<int64_t>(),
                     .factors = each.defined() ? each.const_data_ptr<float>() : nullptr,
                     .inverse_temperature = static_cast<float>(1.0 / temperature),
                     .log_probs = result.log_probs.mutable_data_ptr<float>(),
                     .entropy = result.entropy.mutable_data_ptr<float>(),
                     .is_best = result.is_best.mutable_data_ptr<bool>()};
  void* const data = logits.mutable_data_ptr();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    if (dtype == at::kFloat) {
      VisitRows(static_cast<float*>(data), rows, begin, end);
    } else {
      std::vector<float> wide(static_cast<size_t>(rows.width));
      VisitRows(static_cast<uint16_t*>(data), rows, begin, end, wide.data());
    }
  });
  return result;
}

}  // namespace flowmesh::kernels
