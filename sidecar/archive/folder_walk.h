// What of a folder goes into its archive (PROTOCOL.md section 7): regular files, directories and
// symbolic links that stay inside.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::sidecar {

struct FolderEntry {
  enum class Kind { kFile, kDirectory, kLink };
  Kind kind;
  std::string name;    // `final_model/a/b`: relative, beginning with the folder's own name
  int fd = -1;         // kFile: open for reading, during the visit only
  struct stat status;  // of the entry itself
  std::string target;  // kLink
};

// Visits the folder itself and then everything in it, a directory before what it holds, names in
// the order of their bytes. Follows no link, also when the folder changes meanwhile. Sockets,
// pipes, devices and links that lead out are not visited but named in `skipped`. Ends with the
// first error: the visitor's, PermissionDenied or another for what cannot be read, or
// FailedPrecondition when `folder` is no directory.
absl::Status WalkFolder(const std::filesystem::path& folder,
                        const std::function<absl::Status(const FolderEntry&)>& visit,
                        std::vector<std::string>& skipped);

}  // namespace flowmesh::sidecar
