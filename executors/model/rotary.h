// Rotary positions on two halves (not interleaved), with the scalings of TASKS.md 5.1.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "executors/model/config.h"

namespace flowmesh::model {

// Cosines and sines of the angles of a batch's tokens, each half repeated, in the model's dtype.
struct Rotation {
  at::Tensor cos;  // [tokens, 1, head_dim]
  at::Tensor sin;  // [tokens, 1, head_dim]

  // x: [tokens, heads, head_dim], turned by each token's angles; the same shape.
  at::Tensor Apply(const at::Tensor& x) const;
};

// Immutable; thread-safe.
class RotaryEmbedding {
 public:
  RotaryEmbedding(const RopeConfig& config, int64_t head_dim, at::Device device);

  // positions, lengths: [tokens] int64, as in ForwardInput; the lengths may be undefined without
  // dynamic scaling.
  Rotation At(const at::Tensor& positions, const at::Tensor& lengths, at::ScalarType dtype) const;

 private:
  at::Tensor Exponents() const;    // [head_dim / 2] float32 on the CPU
  at::Tensor Frequencies() const;  // [head_dim / 2] float32 on the CPU
  // The base grows with the sequence once it is longer than the original positions: [tokens,
  // head_dim / 2].
  at::Tensor DynamicFrequencies(const at::Tensor& lengths) const;

  const RopeConfig config_;
  const int64_t head_dim_;
  const at::Tensor frequencies_;  // [head_dim / 2] float32
};

}  // namespace flowmesh::model
