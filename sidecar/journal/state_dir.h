// STATE_DIR: one locked sub-directory per sidecar, so that several may share the setting and no two
// share a state (PROTOCOL.md section 11).
#pragma once

#include <filesystem>
#include <string>

#include "common/files.h"
#include "common/status.h"

namespace flowmesh::sidecar {

struct StateDir {
  std::filesystem::path path;
  UniqueFd lock;  // held for as long as this lives

  std::filesystem::path journal() const { return path / "journal.db"; }
};

// `<root>/<worker_id>` when `worker_id` is not empty, else the first free `<root>/auto-N`, one
// whose journal holds unfinished work first. Nobody but the owner may look into it.
// FailedPrecondition: another process holds the folder of that worker id. PermissionDenied and
// others: it cannot be made.
absl::StatusOr<StateDir> OpenStateDir(const std::filesystem::path& root,
                                      const std::string& worker_id);

}  // namespace flowmesh::sidecar
