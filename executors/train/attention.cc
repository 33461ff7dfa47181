#include "executors/train/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace flowmesh::train {
namespace {

// Rows [begin, begin + count * length) of [tokens, heads, head_dim] as [count, heads, length,
// head_dim].
at::Tensor Sequences(const at::Tensor& x, int64_t begin, int64_t count, int64_t length) {
  return x.narrow(0, begin, count * length).unflatten(0, {count, length}).transpose(1, 2);
}

}  // namespace

SequenceAttention::SequenceAttention(std::vector<int64_t> lengths)
    : lengths_(std::move(lengths)),
      dense_(at::tensor(lengths_, at::kLong)),
      masks_(lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end())) {}

at::Tensor SequenceAttention::Run(const at::Tensor& q, const at::Tensor& all_k,
                                  const at::Tensor& all_v, const model::AttentionParams& params) {
  if (params.logit_soft_cap != 0) {  // no fused kernel caps scores
    return dense_.Run(q, all_k, all_v, params);
  }
  // On GPUs the fused kernels that take float32 or a mask want as many heads of keys as of queries.
  const int64_t group = q.size(1) / all_k.size(1);
  const bool repeats =
      q.is_cuda() && group > 1 && (q.scalar_type() == at::kFloat || params.sliding_window > 0);
  const at::Tensor k = repeats ? all_k.repeat_interleave(group, 1) : all_k;
  const at::Tensor v = repeats ? all_v.repeat_interleave(group, 1) : all_v;
  std::vector<at::Tensor> results;
  int64_t begin = 0;
  for (size_t first = 0; first < lengths_.size();) {
    // Neighbours of one length go together.
    const int64_t length = lengths_[first];
    int64_t count = 0;
    for (; first < lengths_.size() && lengths_[first] == length; ++first) ++count;
    const bool is_windowed = params.sliding_window > 0 && params.sliding_window < length;
    const std::optional<at::Tensor> mask =
        is_windowed ? std::optional(masks_.Of(length, params.sliding_window, q.device()))
                    : std::nullopt;
    const at::Tensor result = at::scaled_dot_product_attention(
        Sequences(q, begin, count, length), Sequences(k, begin, count, length),
        Sequences(v, begin, count, length), mask, params.dropout, /*is_causal=*/!is_windowed,
        params.scale, /*enable_gqa=*/q.size(1) != k.size(1));
    results.push_back(result.transpose(1, 2).flatten(0, 1));
    begin += count * length;
  }
  return results.size() == 1 ? results[0] : at::cat(results, 0);
}

}  // namespace flowmesh::train
