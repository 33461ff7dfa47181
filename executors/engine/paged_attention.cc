#include "executors/engine/paged_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "executors/model/layers.h"

namespace flowmesh::engine {
namespace {

// Up to this many tokens of a chunk, reading keys in place beats gathering them.
constexpr int64_t kFewTokens = 8;
// Scores of one tile, per head: bounds the memory of long prompts.
constexpr int64_t kMaxTileScores = int64_t{1} << 22;
// Of the masks that are kept for other layers; to make one anew costs little beside its scores.
constexpr int64_t kMaxKeptScores = 4 * kMaxTileScores;

at::Tensor ToTensor(const std::vector<int64_t>& values, at::Device device) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor.to(device);
}

bool KernelReads(const at::Tensor& keys) {
  const at::ScalarType dtype = keys.scalar_type();
  return keys.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16);
}

// The place of token `position` of `sequence` among the tokens of all blocks.
int64_t Slot(const SequenceState& sequence, int64_t position, int64_t block_tokens) {
  const Block& block = sequence.blocks[static_cast<size_t>(position / block_tokens)];
  return block.id() * block_tokens + position % block_tokens;
}

}  // namespace

PagedAttention::PagedAttention(const KvCache* cache, const std::vector<Chunk>& chunks)
    : cache_(cache) {
  const at::Device device = cache->keys(0).device();
  const bool has_kernel = KernelReads(cache->keys(0));
  const int64_t block_tokens = cache->block_tokens();
  std::vector<int64_t> slots;
  for (const Chunk& chunk : chunks) {
    const auto row = static_cast<int64_t>(slots.size());
    for (int64_t i = 0; i < chunk.count; ++i) {
      slots.push_back(Slot(*chunk.sequence, chunk.begin + i, block_tokens));
    }
    std::vector<int32_t> table;
    for (const Block& block : chunk.sequence->blocks) table.push_back(block.id());
    if (!has_kernel || chunk.count > kFewTokens) {
      tokens_.resize(slots.size());
      AddTiles(chunk, row, ToTensor({table.begin(), table.end()}, device));
      continue;
    }
    tables_.push_back(std::move(table));
    for (int64_t i = 0; i < chunk.count; ++i) {
      tokens_.push_back({.block_table = tables_.back().data(), .position = chunk.begin + i});
    }
    if (spans_.empty() || spans_.back().end != row) spans_.push_back({row, row});
    spans_.back().end = row + chunk.count;
  }
  slots_ = ToTensor(slots, device);
}

void PagedAttention::AddTiles(const Chunk& chunk, int64_t row, const at::Tensor& blocks) {
  for (int64_t done = 0; done < chunk.count;) {
    const int64_t keys = chunk.begin + chunk.count;
    const int64_t count = std::min(chunk.count - done, std::max<int64_t>(1, kMaxTileScores / keys));
    const int64_t end = chunk.begin + done + count;
    const int64_t needed = BlocksFor(end, cache_->block_tokens());
    tiles_.push_back({row + done, count, chunk.begin + done, blocks.narrow(0, 0, needed)});
    done += count;
  }
}

at::Tensor PagedAttention::Run(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const model::AttentionParams& params) {
  Store(k, v, params.layer);
  at::Tensor out = at::empty(q.sizes(), q.options());
  if (!spans_.empty()) RunKernel(q.contiguous(), out, params);
  for (const Tile& tile : tiles_) {
    out.narrow(0, tile.row, tile.count)
        .copy_(RunTile(tile, q.narrow(0, tile.row, tile.count), params));
  }
  return out;
}

void PagedAttention::Store(const at::Tensor& k, const at::Tensor& v, int layer) const {
  cache_->keys(layer).flatten(0, 1).index_copy_(0, slots_, k);
  cache_->values(layer).flatten(0, 1).index_copy_(0, slots_, v);
}

void PagedAttention::RunKernel(const at::Tensor& q, at::Tensor& out,
                               const model::AttentionParams& params) const {
  const at::Tensor& keys = cache_->keys(params.layer);
  const at::Tensor& values = cache_->values(params.layer);
  const kernels::PagedShape shape{.heads = q.size(1),
                                  .kv_heads = keys.size(2),
                                  .head_dim = q.size(2),
                                  .block_tokens = cache_->block_tokens(),
                                  .scale = params.scale,
                                  .window = params.sliding_window,
                                  .soft_cap = params.logit_soft_cap};
  const auto items = [&](auto kernel, auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    for (const Span& span : spans_) {
      at::parallel_for(span.begin * shape.kv_heads, span.end * shape.kv_heads, /*grain_size=*/1,
                       [&](int64_t begin, int64_t end) {
                         kernel(static_cast<const T*>(q.const_data_ptr()),
                                static_cast<const T*>(keys.const_data_ptr()),
                                static_cast<const T*>(values.const_data_ptr()),
                                static_cast<T*>(out.mutable_data_ptr()), tokens_.data(), shape,
                                begin, end);
                       });
    }
  };
  if (q.scalar_type() == at::kBFloat16) {
    items(kernels::PagedAttentionBf16, static_cast<uint16_t*>(nullptr));
  } else {
    items(kernels::PagedAttentionFp32, static_cast<float*>(nullptr));
  }
}

// What is added to the scores: 0 where query and key meet, else minus infinity. [count, keys]
at::Tensor PagedAttention::Mask(const Tile& tile, int64_t first, int64_t window,
                                const at::Tensor& q) {
  const auto kept = masks_.find({tile.row, window});
  if (kept != masks_.end()) return kept->second;
  const auto options = at::TensorOptions(at::kLong).device(q.device());
  const int64_t end = tile.position + tile.count;
  const at::Tensor queries = at::arange(tile.position, end, options).unsqueeze(1);
  const at::Tensor distance = queries - at::arange(first, end, options).unsqueeze(0);
  at::Tensor hidden = distance < 0;
  if (window > 0) hidden = hidden | (distance >= window);
  at::Tensor mask = at::zeros(hidden.sizes(), q.options())
                        .masked_fill_(hidden, -std::numeric_limits<float>::infinity());
  if (kept_scores_ + mask.numel() <= kMaxKeptScores) {
    kept_scores_ += mask.numel();
    masks_.emplace(std::pair(tile.row, window), mask);
  }
  return mask;
}

// q: [count, heads, head_dim], and so is the result.
at::Tensor PagedAttention::RunTile(const Tile& tile, const at::Tensor& q,
                                   const model::AttentionParams& params) {
  const int64_t end = tile.position + tile.count;
  const int64_t window = params.sliding_window;
  const int64_t first = window > 0 ? std::max<int64_t>(0, tile.position + 1 - window) : 0;
  const int64_t group = q.size(1) / cache_->keys(params.layer).size(2);
  // Query heads that share a key-value head become the first dimension, over which keys and values
  // are repeated without a copy: [group, kv_heads, ..., head_dim].
  const int64_t first_block = first / cache_->block_tokens();
  const at::Tensor blocks = tile.blocks.slice(0, first_block);
  const auto gather = [&](const at::Tensor& cached) {
    const at::Tensor all = cached.index_select(0, blocks).flatten(0, 1);
    const at::Tensor seen = all.narrow(0, first - first_block * cache_->block_tokens(), end - first)
                                .transpose(0, 1)
                                .unsqueeze(0);
    return seen.expand({group, -1, -1, -1});
  };
  const at::Tensor keys = gather(cache_->keys(params.layer));
  const at::Tensor values = gather(cache_->values(params.layer));
  const at::Tensor queries = q.unflatten(1, {-1, group}).permute({2, 1, 0, 3});
  const at::Tensor mask = Mask(tile, first, window, q);
  at::Tensor out;  // [group, kv_heads, count, head_dim]
  if (params.logit_soft_cap == 0) {
    out = at::scaled_dot_product_attention(queries, keys, values, mask, 0.0, false, params.scale);
  } else {
    const at::Tensor scores = at::matmul(queries, keys.transpose(2, 3)) * params.scale;
    const at::Tensor capped = model::SoftCap(scores, params.logit_soft_cap) + mask;
    out = at::matmul(at::softmax(capped, -1, at::kFloat).to(q.scalar_type()), values);
  }
  return out.permute({2, 1, 0, 3}).flatten(1, 2);
}

}  // namespace flowmesh::engine
