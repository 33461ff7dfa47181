// Keys and values of every layer, in blocks of a fixed number of tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "executors/model/causal_lm.h"

namespace flowmesh::engine {

// Memory that is never written to costs nothing on the CPU: the tensors are not filled.
class KvCache {
 public:
  // Throws c10::Error when the memory cannot be had.
  KvCache(const model::CausalLm& model, int64_t num_blocks, int64_t block_tokens);

  // Bytes that one block takes in all layers together.
  static uint64_t BytesPerBlock(const model::CausalLm& model, int64_t block_tokens);

  int64_t block_tokens() const { return block_tokens_; }
  int64_t num_blocks() const { return keys_.front().size(0); }
  // [blocks, block_tokens, kv_heads, head_dim]
  const at::Tensor& keys(int layer) const { return keys_[static_cast<size_t>(layer)]; }
  const at::Tensor& values(int layer) const { return values_[static_cast<size_t>(layer)]; }

 private:
  const int64_t block_tokens_;
  std::vector<at::Tensor> keys_, values_;  // by layer
};

}  // namespace flowmesh::engine
