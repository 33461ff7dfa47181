// A file's bytes as read-only memory: pages come in when they are touched.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

#include "common/status.h"

namespace flowmesh::model {

// Owns the mapping; spans into it must not outlive it. Thread-safe.
class MappedFile {
 public:
  // NotFound, PermissionDenied; InvalidArgument when it is no regular file. An empty file has no
  // bytes.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }

  // Drops the resident pages that lie wholly inside `part`: it has been read and converted. They
  // would be read again from disk.
  void Release(std::span<const std::byte> part) const;

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace flowmesh::model
