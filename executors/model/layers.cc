#include "executors/model/layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <numeric>

#include "executors/kernels/gradients.h"
#include "executors/kernels/linear.h"

namespace flowmesh::model {

namespace {

// y plus what the adapters add to it.
at::Tensor WithAdapters(at::Tensor y, const at::Tensor& x, const std::vector<LowRank>& adapters) {
  for (const LowRank& adapter : adapters) {
    const at::ScalarType dtype = x.scalar_type();  // the adapters' own is float32 in training
    const at::Tensor low =
        kernels::Linear(Dropout(x, adapter.dropout), adapter.a.to(dtype), at::Tensor());
    y = y + kernels::Linear(low, adapter.b.to(dtype), at::Tensor()) * adapter.scale;
  }
  return y;
}

}  // namespace

Linear::Linear(const ParameterScope& scope, int64_t in, int64_t out, bool bias, Split split,
               bool transposed) {
  scope.Add(&weight_, "weight", {out, in}, split, transposed);
  if (bias) scope.Add(&bias_, "bias", {out}, split == Split::kRows ? split : Split::kNone);
  scope.list().AddLinear({.path = scope.path(),
                          .in = in,
                          .out = out,
                          .transposed = transposed,
                          .weight = &weight_,
                          .adapters = &adapters_});
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  const at::Tensor in = x.to(weight_.scalar_type());
  return WithAdapters(kernels::Linear(in, weight_, bias_), in, adapters_);
}

StackedLinear::StackedLinear(const ParameterScope& scope, const std::vector<std::string>& names,
                             int64_t in, const std::vector<int64_t>& outs, bool bias)
    : outs_(outs), adapters_(outs.size()) {
  scope.AddStack(&weight_, "weight", names, outs, {in}, Split::kRows);
  if (bias) scope.AddStack(&bias_, "bias", names, outs, {}, Split::kRows);
  int64_t row = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    scope.list().AddLinear({.path = (scope / names[i]).path(),
                            .in = in,
                            .out = outs[i],
                            .weight = &weight_,
                            .first_row = row,
                            .adapters = &adapters_[i]});
    row += outs[i];
  }
}

std::vector<at::Tensor> StackedLinear::operator()(const at::Tensor& x) const {
  const at::Tensor in = x.to(weight_.scalar_type());
  std::vector<at::Tensor> parts = kernels::Linear(in, weight_, bias_).split_with_sizes(outs_, -1);
  for (size_t i = 0; i < parts.size(); ++i) {
    parts[i] = WithAdapters(std::move(parts[i]), in, adapters_[i]);
  }
  return parts;
}

Embedding::Embedding(const ParameterScope& scope, int64_t rows, int64_t width) {
  scope.Add(&weight_, "weight", {rows, width}, Split::kRows);
}

at::Tensor Embedding::operator()(const at::Tensor& ids, at::ScalarType dtype) const {
  if (kernels::WantsGradient({weight_})) return kernels::TrainedEmbedding(weight_, ids, dtype);
  return at::embedding(weight_, ids).to(dtype);
}

RmsNorm::RmsNorm(const ParameterScope& scope, int64_t width, double eps, kernels::NormWeight form)
    : eps_(eps), form_(form) {
  scope.AddNorm(&weight_, "weight", width);
}

at::Tensor RmsNorm::operator()(const at::Tensor& x) const {
  return kernels::RmsNorm(x, weight_, eps_, form_);
}

LayerNorm::LayerNorm(const ParameterScope& scope, int64_t width, double eps)
    : width_(width), eps_(eps) {
  scope.AddNorm(&weight_, "weight", width);
  scope.AddNorm(&bias_, "bias", width);
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  const at::ScalarType dtype = weight_.scalar_type();  // may be wider than x; no kernel takes both
  return at::layer_norm(x.to(dtype), {width_}, weight_, bias_, eps_).to(x.scalar_type());
}

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kRelu:
      return at::relu(x);
  }
  return x;
}

GatedMlp::GatedMlp(const ParameterScope& scope, const ModelConfig& c)
    : activation_(c.activation),
      gate_up_(scope, {"gate_proj", "up_proj"}, c.hidden_size,
               {c.intermediate_size, c.intermediate_size}, c.mlp_bias),
      down_(scope / "down_proj", c.intermediate_size, c.hidden_size, c.mlp_bias, Split::kColumns) {}

at::Tensor GatedMlp::operator()(const at::Tensor& x) const {
  const std::vector<at::Tensor> parts = gate_up_(x);
  const at::Tensor &gate = parts[0], &up = parts[1];
  switch (activation_) {
    case Activation::kSilu:
      return down_(kernels::Gated(gate, up, kernels::Gate::kSilu));
    case Activation::kGeluTanh:
      return down_(kernels::Gated(gate, up, kernels::Gate::kGeluTanh));
    default:
      return down_(Activate(gate, activation_) * up);
  }
}

at::Tensor Dropout(const at::Tensor& x, double p) {
  return p == 0 ? x : at::dropout(x, p, /*train=*/true);
}

at::Tensor SoftCap(const at::Tensor& x, float c) { return c == 0 ? x : at::tanh(x / c) * c; }

}  // namespace flowmesh::model
