// GPT-2: learned positions, LayerNorm before attention and MLP, one fused projection for q, k and
// v, biases everywhere, head tied to the token embeddings.
#include <ATen/TensorOperators.h>

#include <deque>

#include "executors/model/decoder.h"
#include "executors/model/layers.h"

namespace flowmesh::model {
namespace {

constexpr bool kTransposed = true;  // Transformers' Conv1D stores [in, out]

class Gpt2Attention : public Layer {
 public:
  Gpt2Attention(const ParameterScope& scope, const ModelConfig& c, int layer)
      : head_dim_(c.head_dim),
        params_(
            {.layer = layer,
             .scale = c.attention_scale / static_cast<float>(c.scale_by_layer ? layer + 1 : 1)}),
        c_attn_(scope / "c_attn", c.hidden_size, 3 * c.hidden_size, true, Split::kRows,
                kTransposed),
        c_proj_(scope / "c_proj", c.hidden_size, c.hidden_size, true, Split::kColumns,
                kTransposed) {}

  // x: [tokens, hidden]; `dropout`: of the attention's weights
  at::Tensor operator()(const at::Tensor& x, double dropout, Attention& attention) const {
    const std::vector<at::Tensor> qkv = c_attn_(x).unflatten(-1, {-1, head_dim_}).chunk(3, 1);
    AttentionParams params = params_;
    params.dropout = dropout;
    return c_proj_(attention.Run(qkv[0], qkv[1], qkv[2], params).flatten(1));
  }

 private:
  const int64_t head_dim_;
  const AttentionParams params_;
  Linear c_attn_, c_proj_;
};

class Gpt2Layer : public Layer {
 public:
  Gpt2Layer(const ParameterScope& scope, const ModelConfig& c, int layer)
      : activation_(c.activation),
        ln_1_(scope / "ln_1", c.hidden_size, c.norm_eps),
        attention_(scope / "attn", c, layer),
        ln_2_(scope / "ln_2", c.hidden_size, c.norm_eps),
        c_fc_(scope / "mlp" / "c_fc", c.hidden_size, c.intermediate_size, true, Split::kRows,
              kTransposed),
        c_proj_(scope / "mlp" / "c_proj", c.intermediate_size, c.hidden_size, true, Split::kColumns,
                kTransposed) {}

  at::Tensor operator()(at::Tensor x, const DropoutRates& dropout, Attention& attention) const {
    x = x + Dropout(attention_(ln_1_(x), dropout.attention, attention), dropout.residual);
    return x + Dropout(c_proj_(Activate(c_fc_(ln_2_(x)), activation_)), dropout.residual);
  }

 private:
  const Activation activation_;
  LayerNorm ln_1_;
  Gpt2Attention attention_;
  LayerNorm ln_2_;
  Linear c_fc_, c_proj_;
};

class Gpt2 : public Decoder {
 public:
  Gpt2(const ModelConfig& c, const Precision& precision, at::Device device)
      : Decoder(c, precision, device),
        wte_(scope() / "transformer" / "wte", c.vocab_size, c.hidden_size),
        wpe_(scope() / "transformer" / "wpe", c.max_positions, c.hidden_size),
        ln_f_(scope() / "transformer" / "ln_f", c.hidden_size, c.norm_eps) {
    for (int i = 0; i < c.num_layers; ++i) {
      layers_.emplace_back(scope() / "transformer" / "h" / i, c, i);
    }
    if (!c.tie_word_embeddings) MakeHead();
  }

 protected:
  const at::Tensor& embeddings() const override { return wte_.weight(); }

  at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) override {
    at::Tensor x =
        wte_(input.token_ids, beside_products()) + wpe_(input.positions, beside_products());
    x = Dropout(x, dropout().embedding);
    int index = 0;
    for (const Gpt2Layer& layer : layers_) {
      x = RunLayer(
          index++,
          [&layer, rates = dropout(), &attention](const at::Tensor& in) {
            return layer(in, rates, attention);
          },
          x);
    }
    return x;
  }

  at::Tensor FinalNorm(const at::Tensor& hidden) override { return ln_f_(hidden); }

 private:
  Embedding wte_, wpe_;
  std::deque<Gpt2Layer> layers_;
  LayerNorm ln_f_;
};

}  // namespace

std::unique_ptr<Decoder> MakeGpt2(const ModelConfig& config, const Precision& precision,
                                  at::Device device) {
  return std::make_unique<Gpt2>(config, precision, device);
}

}  // namespace flowmesh::model
