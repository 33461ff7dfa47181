// The layers that the families are made of. Each registers its parameters with the scope it is
// built in and computes in the order and the dtypes of Transformers' classes. Layers do not move:
// the parameter list holds the addresses of their members.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "executors/kernels/elementwise.h"
#include "executors/model/config.h"
#include "executors/model/parameters.h"

namespace flowmesh::model {

class Layer {
 public:
  Layer() = default;
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
};

// y = x Wᵀ + b. `transposed`: stored as [in, out].
class Linear : public Layer {
 public:
  Linear(const ParameterScope& scope, int64_t in, int64_t out, bool bias, Split split,
         bool transposed = false);

  // [tokens, in] of any dtype -> [tokens, out] of the weight's, as autocast has products.
  at::Tensor operator()(const at::Tensor& x) const;
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;  // [out, in]
  at::Tensor bias_;    // [out] or undefined
  std::vector<LowRank> adapters_;
};

// Several projections of the same input, stored apart, computed as one.
class StackedLinear : public Layer {
 public:
  StackedLinear(const ParameterScope& scope, const std::vector<std::string>& names, int64_t in,
                const std::vector<int64_t>& outs, bool bias);

  // [tokens, in] -> one view [tokens, outs[i]] each; dtypes as Linear.
  std::vector<at::Tensor> operator()(const at::Tensor& x) const;

 private:
  const std::vector<int64_t> outs_;
  at::Tensor weight_;                           // [sum of outs, in]
  at::Tensor bias_;                             // [sum of outs] or undefined
  std::vector<std::vector<LowRank>> adapters_;  // of each part
};

class Embedding : public Layer {
 public:
  Embedding(const ParameterScope& scope, int64_t rows, int64_t width);

  // [tokens] -> [tokens, width] of `dtype`
  at::Tensor operator()(const at::Tensor& ids, at::ScalarType dtype) const;
  const at::Tensor& weight() const { return weight_; }

 private:
  at::Tensor weight_;  // [rows, width]
};

// Root mean square norm over the last dimension, in float32.
class RmsNorm : public Layer {
 public:
  RmsNorm(const ParameterScope& scope, int64_t width, double eps, kernels::NormWeight form);

  at::Tensor operator()(const at::Tensor& x) const;  // [..., width]; dtypes as kernels::RmsNorm

 private:
  const double eps_;
  const kernels::NormWeight form_;
  at::Tensor weight_;  // [width]
};

class LayerNorm : public Layer {
 public:
  LayerNorm(const ParameterScope& scope, int64_t width, double eps);

  at::Tensor operator()(const at::Tensor& x) const;  // [..., width]

 private:
  const int64_t width_;
  const double eps_;
  at::Tensor weight_, bias_;  // [width]
};

at::Tensor Activate(const at::Tensor& x, Activation activation);

// down(act(gate(x)) * up(x))
class GatedMlp : public Layer {
 public:
  GatedMlp(const ParameterScope& scope, const ModelConfig& config);

  at::Tensor operator()(const at::Tensor& x) const;  // [tokens, hidden]

 private:
  const Activation activation_;
  StackedLinear gate_up_;
  Linear down_;
};

// In training a share `p` of x's elements becomes 0 and the others grow by 1 / (1 - p); x itself
// for p = 0. Draws from the default generator of x's device.
at::Tensor Dropout(const at::Tensor& x, double p);

// c * tanh(x / c); x itself for c = 0.
at::Tensor SoftCap(const at::Tensor& x, float c);

}  // namespace flowmesh::model
