// Gemma 2 and 3: scaled embeddings, norms around attention and MLP, layers with a sliding window
// between global ones. Gemma 2 soft-caps scores and logits; Gemma 3 norms q and k and rotates its
// sliding layers by a base of their own.
#include <ATen/TensorOperators.h>
#include <ATen/ops/scalar_tensor.h>

#include <cmath>
#include <deque>
#include <optional>

#include "executors/model/decoder.h"
#include "executors/model/layers.h"
#include "executors/model/rotary.h"
#include "executors/model/self_attention.h"

namespace flowmesh::model {
namespace {

using kernels::NormWeight;

class GemmaNorm : public RmsNorm {
 public:
  GemmaNorm(const ParameterScope& scope, int64_t width, double eps)
      : RmsNorm(scope, width, eps, NormWeight::kOnePlus) {}
};

class GemmaLayer : public Layer {
 public:
  GemmaLayer(const ParameterScope& scope, const ModelConfig& c, int layer)
      : input_norm_(scope / "input_layernorm", c.hidden_size, c.norm_eps),
        attention_(
            scope / "self_attn", c, layer,
            c.family == Family::kGemma3 ? std::optional(NormWeight::kOnePlus) : std::nullopt),
        attention_norm_(scope / "post_attention_layernorm", c.hidden_size, c.norm_eps),
        mlp_input_norm_(scope / "pre_feedforward_layernorm", c.hidden_size, c.norm_eps),
        mlp_(scope / "mlp", c),
        mlp_norm_(scope / "post_feedforward_layernorm", c.hidden_size, c.norm_eps) {}

  at::Tensor operator()(at::Tensor x, const Rotation& rotation, Attention& attention) const {
    x = x + attention_norm_(attention_(input_norm_(x), rotation, attention));
    return x + mlp_norm_(mlp_(mlp_input_norm_(x)));
  }

 private:
  GemmaNorm input_norm_;
  SelfAttention attention_;
  GemmaNorm attention_norm_, mlp_input_norm_;
  GatedMlp mlp_;
  GemmaNorm mlp_norm_;
};

class Gemma : public Decoder {
 public:
  Gemma(const ModelConfig& c, const Precision& precision, at::Device device)
      : Decoder(c, precision, device),
        // The factor is rounded to the embeddings' dtype before it is used.
        embedding_scale_(at::scalar_tensor(std::sqrt(static_cast<double>(c.hidden_size)),
                                           precision.beside_products())
                             .item<double>()),
        embed_tokens_(scope() / "model" / "embed_tokens", c.vocab_size, c.hidden_size),
        norm_(scope() / "model" / "norm", c.hidden_size, c.norm_eps),
        rotary_(c.rope, c.head_dim, device) {
    if (c.family == Family::kGemma3) local_rotary_.emplace(c.local_rope, c.head_dim, device);
    for (int i = 0; i < c.num_layers; ++i) {
      layers_.emplace_back(scope() / "model" / "layers" / i, c, i);
    }
    if (!c.tie_word_embeddings) MakeHead();
  }

 protected:
  const at::Tensor& embeddings() const override { return embed_tokens_.weight(); }

  at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) override {
    const Rotation global = rotary_.At(input.positions, input.lengths, beside_products());
    const Rotation local =
        local_rotary_ ? local_rotary_->At(input.positions, input.lengths, beside_products())
                      : global;
    at::Tensor x = embed_tokens_(input.token_ids, beside_products()) * embedding_scale_;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Rotation& rotation = config().windows[i] > 0 ? local : global;
      const GemmaLayer& layer = layers_[i];
      x = RunLayer(
          static_cast<int>(i),
          [&layer, rotation, &attention](const at::Tensor& in) {
            return layer(in, rotation, attention);
          },
          x);
    }
    return x;
  }

  at::Tensor FinalNorm(const at::Tensor& hidden) override { return norm_(hidden); }

 private:
  const double embedding_scale_;
  Embedding embed_tokens_;
  std::deque<GemmaLayer> layers_;
  GemmaNorm norm_;
  RotaryEmbedding rotary_;                       // of global layers
  std::optional<RotaryEmbedding> local_rotary_;  // of sliding ones, gemma3
};

}  // namespace

std::unique_ptr<Decoder> MakeGemma(const ModelConfig& config, const Precision& precision,
                                   at::Device device) {
  return std::make_unique<Gemma>(config, precision, device);
}

}  // namespace flowmesh::model
