// The blocks of a KV cache as handles: a block is free again when its handle goes.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace flowmesh::engine {

class BlockAllocator;

// Blocks that hold `tokens` tokens.
inline int64_t BlocksFor(int64_t tokens, int64_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

// Owns one block. Movable; must not outlive its allocator.
class Block {
 public:
  Block(Block&& other) noexcept
      : allocator_(std::exchange(other.allocator_, nullptr)), id_(other.id_) {}
  Block& operator=(Block&& other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~Block();

  int32_t id() const { return id_; }

 private:
  friend class BlockAllocator;
  Block(BlockAllocator* allocator, int32_t id) : allocator_(allocator), id_(id) {}

  BlockAllocator* allocator_;
  int32_t id_;
};

// Hands out the ids 0 to `count` - 1. The block freed last is given first: its memory is still in
// the caches, and memory never touched stays untouched. Not thread-safe.
class BlockAllocator {
 public:
  explicit BlockAllocator(int64_t count);
  BlockAllocator(const BlockAllocator&) = delete;
  BlockAllocator& operator=(const BlockAllocator&) = delete;

  // Nothing when all are taken.
  std::optional<Block> Allocate();
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

 private:
  friend class Block;
  std::vector<int32_t> free_;
};

}  // namespace flowmesh::engine
