// A file on its way to its name, with its digest and size counted as it is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "common/files.h"
#include "common/sha256.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// A DotFile with a count. Not thread-safe.
class HashedFile {
 public:
  // Removes halves that a killed process left of the same file.
  static absl::StatusOr<HashedFile> Create(const std::filesystem::path& path);

  absl::Status Write(std::string_view bytes);
  // Syncs it to disk and gives it its name, in place of an older file.
  absl::Status Commit();

  uint64_t bytes() const { return bytes_; }
  // Lower-case hex, after Commit.
  const std::string& sha256() const { return digest_; }

 private:
  explicit HashedFile(DotFile file) : file_(std::move(file)) {}

  DotFile file_;
  Sha256 sha256_;
  std::string digest_;
  uint64_t bytes_ = 0;
  uint64_t written_back_ = 0;  // the disk was told to begin with these
};

}  // namespace flowmesh::sidecar
