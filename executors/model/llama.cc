// Llama and its kin: Llama 1 to 3, Mistral (sliding window), Qwen2 (biases on q, k and v) and Qwen3
// (norms on q and k). Pre-norm blocks, rotary positions, grouped key-value heads, gated MLP.
#include <ATen/TensorOperators.h>

#include <deque>
#include <optional>

#include "executors/model/decoder.h"
#include "executors/model/layers.h"
#include "executors/model/rotary.h"

namespace flowmesh::model {
namespace {

class LlamaAttention : public Layer {
 public:
  LlamaAttention(const ParameterScope& scope, const ModelConfig& c, int layer)
      : head_dim_(c.head_dim),
        params_({.layer = layer, .scale = c.attention_scale, .sliding_window = c.windows[layer]}),
        qkv_proj_(
            scope, {"q_proj", "k_proj", "v_proj"}, c.hidden_size,
            {c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim},
            c.qkv_bias),
        o_proj_(scope / "o_proj", c.num_heads * c.head_dim, c.hidden_size, c.output_bias,
                Split::kColumns) {
    if (c.family == Family::kQwen3) {
      q_norm_.emplace(scope / "q_norm", c.head_dim, c.norm_eps, kernels::NormWeight::kPlain);
      k_norm_.emplace(scope / "k_norm", c.head_dim, c.norm_eps, kernels::NormWeight::kPlain);
    }
  }

  // x: [tokens, hidden]
  at::Tensor operator()(const at::Tensor& x, const Rotation& rotation, Attention& attention) const {
    const std::vector<at::Tensor> qkv = qkv_proj_(x);
    at::Tensor q = qkv[0].unflatten(-1, {-1, head_dim_});  // [tokens, heads, head_dim]
    at::Tensor k = qkv[1].unflatten(-1, {-1, head_dim_});  // [tokens, kv_heads, head_dim]
    const at::Tensor v = qkv[2].unflatten(-1, {-1, head_dim_});
    if (q_norm_) {
      q = (*q_norm_)(q);
      k = (*k_norm_)(k);
    }
    return o_proj_(attention.Run(rotation.Apply(q), rotation.Apply(k), v, params_).flatten(1));
  }

 private:
  const int64_t head_dim_;
  const AttentionParams params_;
  StackedLinear qkv_proj_;
  Linear o_proj_;
  std::optional<RmsNorm> q_norm_, k_norm_;  // qwen3
};

class LlamaLayer : public Layer {
 public:
  LlamaLayer(const ParameterScope& scope, const ModelConfig& c, int layer)
      : input_norm_(scope / "input_layernorm", c.hidden_size, c.norm_eps,
                    kernels::NormWeight::kPlain),
        attention_(scope / "self_attn", c, layer),
        mlp_norm_(scope / "post_attention_layernorm", c.hidden_size, c.norm_eps,
                  kernels::NormWeight::kPlain),
        mlp_(scope / "mlp", c) {}

  at::Tensor operator()(at::Tensor x, const Rotation& rotation, Attention& attention) const {
    x = x + attention_(input_norm_(x), rotation, attention);
    return x + mlp_(mlp_norm_(x));
  }

 private:
  RmsNorm input_norm_;
  LlamaAttention attention_;
  RmsNorm mlp_norm_;
  GatedMlp mlp_;
};

class Llama : public Decoder {
 public:
  Llama(const ModelConfig& c, at::ScalarType dtype, at::Device device)
      : Decoder(c, dtype, device),
        embed_tokens_(scope() / "model" / "embed_tokens", c.vocab_size, c.hidden_size),
        norm_(scope() / "model" / "norm", c.hidden_size, c.norm_eps, kernels::NormWeight::kPlain),
        rotary_(c.rope, c.head_dim, device) {
    for (int i = 0; i < c.num_layers; ++i) {
      layers_.emplace_back(scope() / "model" / "layers" / i, c, i);
    }
    if (!c.tie_word_embeddings) {
      head_.emplace(scope() / "lm_head", c.hidden_size, c.vocab_size, false, Split::kRows);
    }
  }

 protected:
  at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) override {
    const Rotation rotation = rotary_.At(input.positions, input.lengths, dtype());
    at::Tensor x = embed_tokens_(input.token_ids);
    for (const LlamaLayer& layer : layers_) x = layer(x, rotation, attention);
    return x;
  }

  at::Tensor Logits(const at::Tensor& hidden) override {
    const at::Tensor x = norm_(hidden);
    return head_ ? (*head_)(x) : embed_tokens_.Project(x);
  }

 private:
  Embedding embed_tokens_;
  std::deque<LlamaLayer> layers_;
  RmsNorm norm_;
  std::optional<Linear> head_;  // absent: tied to the embeddings
  RotaryEmbedding rotary_;
};

}  // namespace

std::unique_ptr<Decoder> MakeLlama(const ModelConfig& config, at::ScalarType dtype,
                                   at::Device device) {
  return std::make_unique<Llama>(config, dtype, device);
}

}  // namespace flowmesh::model
