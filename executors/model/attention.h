// Attention over a flat token batch: all tokens of all sequences stand one after another in one
// [tokens] vector, and one forward serves prefill, chunked prefill and decode together. How keys
// and values are kept is the backend's business; a model file only calls Attention::Run.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>

namespace flowmesh::model {

// What an attention layer of a family asks for, besides its tensors.
struct AttentionParams {
  int layer = 0;       // index of the layer, from 0: selects its keys and values in the cache
  float scale = 1.0f;  // factor on q·k
  int64_t sliding_window = 0;   // a token sees the last W positions, itself included; 0: all
  float logit_soft_cap = 0.0f;  // c * tanh(x / c) on scores; 0: none
  double dropout = 0.0;         // of the softmax's results, in training
};

// Owned by whoever drives the forward pass (the engine, a trainer); used by one thread at a time.
class Attention {
 public:
  virtual ~Attention() = default;

  // q: [tokens, heads, head_dim], k and v: [tokens, kv_heads, head_dim], positions already applied.
  // Every token attends to the earlier tokens of its own sequence and itself. Result: [tokens,
  // heads, head_dim].
  virtual at::Tensor Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const AttentionParams& params) = 0;
};

// Which tokens each token of a sequence looks at: itself and those before it, with a window above 0
// only the last so many. Made once for each window, since all layers of a forward pass want the
// same. On one device.
class CausalMasks {
 public:
  // `longest`: tokens of the longest sequence.
  explicit CausalMasks(int64_t longest) : longest_(longest) {}

  // [length, length] bool, by looking token and token looked at.
  at::Tensor Of(int64_t length, int64_t window, at::Device device);

 private:
  const int64_t longest_;
  std::map<int64_t, at::Tensor> masks_;  // by window: [longest, longest]
};

// The plain-torch oracle without a cache: whole sequences, lengths given. Differentiable; any
// device.
class DenseAttention : public Attention {
 public:
  // `lengths`: [sequences] int64 on the CPU; the tokens of sequence i follow those of i - 1.
  explicit DenseAttention(at::Tensor lengths);

  at::Tensor Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const AttentionParams& params) override;

 private:
  const at::Tensor lengths_;
  CausalMasks masks_;
};

}  // namespace flowmesh::model
