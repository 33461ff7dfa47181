// Llama and its kin: Llama 1 to 3, Mistral (sliding window), Qwen2 (biases on q, k and v) and Qwen3
// (norms on q and k). Pre-norm blocks, rotary positions, grouped key-value heads, gated MLP.
#include <ATen/TensorOperators.h>

#include <deque>
#include <optional>

#include "executors/model/decoder.h"
#include "executors/model/layers.h"
#include "executors/model/rotary.h"
#include "executors/model/self_attention.h"

namespace flowmesh::model {
namespace {

using kernels::NormWeight;

class LlamaLayer : public Layer {
 public:
  LlamaLayer(const ParameterScope& scope, const ModelConfig& c, int layer)
      : input_norm_(scope / "input_layernorm", c.hidden_size, c.norm_eps, NormWeight::kPlain),
        attention_(scope / "self_attn", c, layer,
                   c.family == Family::kQwen3 ? std::optional(NormWeight::kPlain) : std::nullopt),
        mlp_norm_(scope / "post_attention_layernorm", c.hidden_size, c.norm_eps,
                  NormWeight::kPlain),
        mlp_(scope / "mlp", c) {}

  at::Tensor operator()(at::Tensor x, const Rotation& rotation, Attention& attention) const {
    x = x + attention_(input_norm_(x), rotation, attention);
    return x + mlp_(mlp_norm_(x));
  }

 private:
  RmsNorm input_norm_;
  SelfAttention attention_;
  RmsNorm mlp_norm_;
  GatedMlp mlp_;
};

class Llama : public Decoder {
 public:
  Llama(const ModelConfig& c, const Precision& precision, at::Device device)
      : Decoder(c, precision, device),
        embed_tokens_(scope() / "model" / "embed_tokens", c.vocab_size, c.hidden_size),
        norm_(scope() / "model" / "norm", c.hidden_size, c.norm_eps, NormWeight::kPlain),
        rotary_(c.rope, c.head_dim, device) {
    for (int i = 0; i < c.num_layers; ++i) {
      layers_.emplace_back(scope() / "model" / "layers" / i, c, i);
    }
    if (!c.tie_word_embeddings) MakeHead();
  }

 protected:
  const at::Tensor& embeddings() const override { return embed_tokens_.weight(); }

  at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) override {
    const Rotation rotation = rotary_.At(input.positions, input.lengths, beside_products());
    at::Tensor x = embed_tokens_(input.token_ids, beside_products());
    int index = 0;
    for (const LlamaLayer& layer : layers_) {
      x = RunLayer(
          index++,
          [&layer, rotation, &attention](const at::Tensor& in) {
            return layer(in, rotation, attention);
          },
          x);
    }
    return x;
  }

  at::Tensor FinalNorm(const at::Tensor& hidden) override { return norm_(hidden); }

 private:
  Embedding embed_tokens_;
  std::deque<LlamaLayer> layers_;
  RmsNorm norm_;
  RotaryEmbedding rotary_;
};

}  // namespace

std::unique_ptr<Decoder> MakeLlama(const ModelConfig& config, const Precision& precision,
                                   at::Device device) {
  return std::make_unique<Llama>(config, precision, device);
}

}  // namespace flowmesh::model
