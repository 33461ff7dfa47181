// Attention of one forward pass over keys and values in blocks: what the engine gives to a model.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "executors/engine/kv_cache.h"
#include "executors/engine/scheduler.h"
#include "executors/kernels/paged_attention.h"
#include "executors/model/attention.h"

namespace flowmesh::engine {

// For the chunks of one pass, whose tokens stand one after another in the flat batch. Every chunk's
// sequence has blocks for the chunk's tokens, and its earlier tokens are in the cache. Borrows
// cache and sequences for the pass; one thread.
//
// On the CPU a few tokens of a sequence (decoding) go through kernels::PagedAttention, which reads
// the blocks in place. Longer chunks, and everything on other devices or in float16, gather the
// sequence's blocks and use libtorch's operators, which are faster the more queries share the keys.
class PagedAttention : public model::Attention {
 public:
  PagedAttention(const KvCache* cache, const std::vector<Chunk>& chunks);

  at::Tensor Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                 const model::AttentionParams& params) override;

 private:
  // Chunk tokens for which all keys are gathered at once.
  struct Tile {
    int64_t row = 0;       // its first token in the flat batch
    int64_t count = 0;     // tokens
    int64_t position = 0;  // place of the first token in its sequence
    at::Tensor blocks;     // [its blocks] int64: of the sequence, on the cache's device
  };
  // Neighbouring tokens of the flat batch for the kernel.
  struct Span {
    int64_t begin = 0;
    int64_t end = 0;
  };

  void AddTiles(const Chunk& chunk, int64_t row, const at::Tensor& blocks);
  void Store(const at::Tensor& k, const at::Tensor& v, int layer) const;
  void RunKernel(const at::Tensor& q, at::Tensor& out, const model::AttentionParams& params) const;
  at::Tensor RunTile(const Tile& tile, const at::Tensor& q, const model::AttentionParams& params);
  at::Tensor Mask(const Tile& tile, int64_t first, int64_t window, const at::Tensor& q);

  const KvCache* cache_;
  at::Tensor slots_;  // [tokens] int64: where each token's key and value go, in all blocks' tokens
  std::vector<std::vector<int32_t>> tables_;  // block tables that tokens_ points into
  std::vector<kernels::PagedToken> tokens_;   // [tokens]; null tables where a tile has the token
  std::vector<Span> spans_;
  std::vector<Tile> tiles_;
  // By tile row and window, for the other layers: as many as kMaxKeptScores allows.
  std::map<std::pair<int64_t, int64_t>, at::Tensor> masks_;
  int64_t kept_scores_ = 0;  // of masks_
};

}  // namespace flowmesh::engine
