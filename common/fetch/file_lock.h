// A lock between processes: who downloads into a folder that others use too.
#pragma once

#include <filesystem>
#include <functional>

#include "common/files.h"
#include "common/status.h"

namespace flowmesh {

// Held until the object goes; the kernel frees it when the process dies. The file stays.
class FileLock {
 public:
  // Waits for whoever holds it, making the file and its folder when they are absent. Cancelled as
  // soon as `is_cancelled`, which is polled from this thread and may be null.
  static absl::StatusOr<FileLock> Take(const std::filesystem::path& path,
                                       const std::function<bool()>& is_cancelled);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}

  UniqueFd fd_;
};

}  // namespace flowmesh
