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

  // positions: [tokens] int64. `max_length`: longest sequence of the batch (dynamic scaling).
  Rotation At(const at::Tensor& positions, int64_t max_length, at::ScalarType dtype) const;

  // [head_dim / 2] float32 on the CPU.
  static at::Tensor InverseFrequencies(const RopeConfig& config, int64_t head_dim,
                                       int64_t max_length);

 private:
  const RopeConfig config_;
  const int64_t head_dim_;
  const at::Tensor frequencies_;  // [head_dim / 2] float32, for sequences within the limit
};

}  // namespace flowmesh::model
