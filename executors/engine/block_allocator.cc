#include "executors/engine/block_allocator.h"

namespace flowmesh::engine {

Block::~Block() {
  if (allocator_ != nullptr) allocator_->free_.push_back(id_);
}

BlockAllocator::BlockAllocator(int64_t count) {
  free_.reserve(static_cast<size_t>(count));
  for (int64_t id = count - 1; id >= 0; --id) free_.push_back(static_cast<int32_t>(id));
}

std::optional<Block> BlockAllocator::Allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t id = free_.back();
  free_.pop_back();
  return Block(this, id);
}

}  // namespace flowmesh::engine
