// safetensors files: one, or shards named by an index. Each file is checked whole when it is
// opened, so that what is read from it later is in bounds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/status.h"
#include "executors/model/mapped_file.h"

namespace flowmesh::model {

struct SafetensorsTensor {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // inside the mapped file; not aligned for old writers
  const MappedFile* file = nullptr;

  at::Tensor Copy() const;  // in memory of its own
};

// Immutable; thread-safe.
class Safetensors {
 public:
  // InvalidArgument, naming the file and the tensor: truncated, a header that is too long or no
  // JSON of the right form, duplicate names, an unsupported dtype, a size other than shape and
  // dtype say, out of bounds, overlaps.
  static absl::StatusOr<std::unique_ptr<Safetensors>> OpenFile(const std::filesystem::path& path);

  // The shards that a `model.safetensors.index.json` names, which lie beside it. InvalidArgument
  // too when a shard lacks a tensor that the index promises, or two shards hold the same.
  static absl::StatusOr<std::unique_ptr<Safetensors>> OpenIndex(const std::filesystem::path& index);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  const SafetensorsTensor* Find(std::string_view name) const;  // null when there is none

 private:
  absl::Status AddFile(const std::filesystem::path& path);

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace flowmesh::model
