// Attention for training: whole sequences of a flat batch, without padding between them and without
// a cache, differentiable, by libtorch's fused kernels where they can do it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "executors/model/attention.h"

namespace flowmesh::train {

// Immutable but for the masks it keeps; one thread at a time.
class SequenceAttention : public model::Attention {
 public:
  // `lengths`: tokens of each sequence; those of a sequence follow those of the one before.
  explicit SequenceAttention(std::vector<int64_t> lengths);

  // q: [tokens, heads, head_dim], k and v: [tokens, kv_heads, head_dim] -> [tokens, heads,
  // head_dim].
  at::Tensor Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const model::AttentionParams& params) override;

 private:
  const std::vector<int64_t> lengths_;
  model::DenseAttention dense_;  // where no fused kernel will do
  model::CausalMasks masks_;
};

}  // namespace flowmesh::train
