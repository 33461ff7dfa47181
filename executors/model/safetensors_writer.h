// Writes safetensors files that Transformers and PEFT open.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::model {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

// Tensors of any device and layout, in the order given. The file appears whole or not at all.
// Errors: the disk's, with the path.
absl::Status WriteSafetensors(const std::filesystem::path& path,
                              const std::vector<NamedTensor>& tensors);

// The same in the folder's `model.safetensors`, or in shards of at most `max_shard_bytes` (a tensor
// that is larger has one for itself) with `model.safetensors.index.json`.
absl::Status WriteShardedSafetensors(const std::filesystem::path& folder,
                                     const std::vector<NamedTensor>& tensors,
                                     uint64_t max_shard_bytes);

}  // namespace flowmesh::model
