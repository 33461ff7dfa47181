// A folder becomes `<folder>.tar.gz` beside it (PROTOCOL.md section 7).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::sidecar {

struct ArchiveOptions {
  int level = 6;             // 0 (stored) to 9
  int threads = 0;           // 0: one per processor
  std::string tar_program;   // empty: in this process
  std::string gzip_program;  // the same; called as pigz is
};

struct ArchiveFile {
  std::filesystem::path path;
  uint64_t bytes = 0;
  std::string sha256;                // lower-case hex
  std::vector<std::string> skipped;  // what is no file, directory or inner link
};

// Replaces an older archive atomically; leaves nothing behind on failure. Without external programs
// the same content gives the same bytes everywhere; when one is missing or fails, the archive is
// made without them, with a warning. Memory stays below 64 MB whatever the folder holds.
// `is_cancelled` is polled from this thread.
//
// PermissionDenied, NotFound, ResourceExhausted (the disk is full) and the like name the file;
// FailedPrecondition when a file changes while it is read, or `folder` is no folder; Cancelled.
absl::StatusOr<ArchiveFile> MakeArchive(const std::filesystem::path& folder,
                                        const ArchiveOptions& options,
                                        const std::function<bool()>& is_cancelled);

}  // namespace flowmesh::sidecar
