#include "executors/model/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include <limits>
#include <utility>
#include <vector>

namespace flowmesh::model {
namespace {

// [length, heads, head_dim] -> [heads, length, head_dim], key-value heads repeated for their group.
at::Tensor ByHead(const at::Tensor& x, int64_t heads) {
  const at::Tensor grouped = x.transpose(0, 1);
  const int64_t repeats = heads / x.size(1);
  return repeats == 1 ? grouped : grouped.repeat_interleave(repeats, 0);
}

}  // namespace

at::Tensor CausalMasks::Of(int64_t length, int64_t window, at::Device device) {
  at::Tensor& mask = masks_[window];
  if (!mask.defined()) {
    const at::Tensor place = at::arange(longest_, at::TensorOptions(at::kLong).device(device));
    const at::Tensor distance = place.unsqueeze(1) - place.unsqueeze(0);
    mask = distance >= 0;
    if (window > 0) mask = mask & (distance < window);
  }
  return mask.narrow(0, 0, length).narrow(1, 0, length);
}

DenseAttention::DenseAttention(at::Tensor lengths)
    : lengths_(std::move(lengths)),
      masks_(lengths_.numel() == 0 ? 0 : lengths_.max().item<int64_t>()) {}

at::Tensor DenseAttention::Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionParams& params) {
  std::vector<at::Tensor> results;
  int64_t begin = 0;
  for (int64_t i = 0; i < lengths_.size(0); ++i) {
    const int64_t length = lengths_.const_data_ptr<int64_t>()[i];
    const at::Tensor queries = ByHead(q.narrow(0, begin, length), q.size(1));
    const at::Tensor keys = ByHead(k.narrow(0, begin, length), q.size(1));
    const at::Tensor values = ByHead(v.narrow(0, begin, length), q.size(1));
    at::Tensor scores = at::matmul(queries, keys.transpose(1, 2)) * params.scale;
    if (const float cap = params.logit_soft_cap; cap != 0) scores = at::tanh(scores / cap) * cap;
    scores = at::where(masks_.Of(length, params.sliding_window, q.device()), scores,
                       -std::numeric_limits<float>::infinity());
    at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
    if (params.dropout > 0) weights = at::dropout(weights, params.dropout, /*train=*/true);
    results.push_back(at::matmul(weights, values).transpose(0, 1));
    begin += length;
  }
  return at::cat(results, 0);
}

}  // namespace flowmesh::model
