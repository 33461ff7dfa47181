// The attention block of the families with rotary positions: projections, norms on q and k where a
// family has them, rotation, attention, output projection.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "executors/model/attention.h"
#include "executors/model/config.h"
#include "executors/model/layers.h"
#include "executors/model/rotary.h"

namespace flowmesh::model {

class SelfAttention : public Layer {
 public:
  // `qk_norm`: the form of the norms on each head of q and k; nothing: none.
  SelfAttention(const ParameterScope& scope, const ModelConfig& config, int layer,
                std::optional<kernels::NormWeight> qk_norm);

  // [tokens, hidden] -> [tokens, hidden]
  at::Tensor operator()(const at::Tensor& x, const Rotation& rotation, Attention& attention) const;

 private:
  const int64_t head_dim_;
  const AttentionParams params_;
  StackedLinear qkv_proj_;
  Linear o_proj_;
  std::optional<RmsNorm> q_norm_, k_norm_;
};

}  // namespace flowmesh::model
