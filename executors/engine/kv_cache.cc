#include "executors/engine/kv_cache.h"

#include <ATen/ops/empty.h>

namespace flowmesh::engine {

KvCache::KvCache(const model::CausalLm& model, int64_t num_blocks, int64_t block_tokens)
    : block_tokens_(block_tokens) {
  const model::ModelInfo& info = model.info();
  const auto options = at::TensorOptions(model.dtype()).device(model.device());
  for (int64_t i = 0; i < info.num_layers; ++i) {
    for (auto* list : {&keys_, &values_}) {
      list->push_back(
          at::empty({num_blocks, block_tokens, info.num_kv_heads, info.head_dim}, options));
    }
  }
}

uint64_t KvCache::BytesPerBlock(const model::CausalLm& model, int64_t block_tokens) {
  const model::ModelInfo& info = model.info();
  const int64_t elements = 2 * info.num_layers * block_tokens * info.num_kv_heads * info.head_dim;
  return static_cast<uint64_t>(elements) * at::elementSize(model.dtype());
}

}  // namespace flowmesh::engine
