#include "executors/model/self_attention.h"

namespace flowmesh::model {

SelfAttention::SelfAttention(const ParameterScope& scope, const ModelConfig& c, int layer,
                             std::optional<kernels::NormWeight> qk_norm)
    : head_dim_(c.head_dim),
      params_({.layer = layer,
               .scale = c.attention_scale,
               .sliding_window = c.windows[static_cast<size_t>(layer)],
               .logit_soft_cap = c.attention_soft_cap}),
      qkv_proj_(
          scope, {"q_proj", "k_proj", "v_proj"}, c.hidden_size,
          {c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim},
          c.qkv_bias),
      o_proj_(scope / "o_proj", c.num_heads * c.head_dim, c.hidden_size, c.output_bias,
              Split::kColumns) {
  if (qk_norm) {
    q_norm_.emplace(scope / "q_norm", c.head_dim, c.norm_eps, *qk_norm);
    k_norm_.emplace(scope / "k_norm", c.head_dim, c.norm_eps, *qk_norm);
  }
}

at::Tensor SelfAttention::operator()(const at::Tensor& x, const Rotation& rotation,
                                     Attention& attention) const {
  const std::vector<at::Tensor> qkv = qkv_proj_(x);
  at::Tensor q = qkv[0].unflatten(-1, {-1, head_dim_});  // [tokens, heads, head_dim]
  at::Tensor k = qkv[1].unflatten(-1, {-1, head_dim_});  // [tokens, kv_heads, head_dim]
  const at::Tensor v = qkv[2].unflatten(-1, {-1, head_dim_});
  if (q_norm_) {
    q = (*q_norm_)(q);
    k = (*k_norm_)(k);
  }
  q = rotation.Apply(q).to(v.scalar_type());  // rotated in float32 under autocast
  k = rotation.Apply(k).to(v.scalar_type());
  return o_proj_(attention.Run(q, k, v, params_).flatten(1));
}

}  // namespace flowmesh::model
