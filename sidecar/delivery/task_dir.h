// Where the directory of a task is, and its state before a run (PROTOCOL.md 6.1).
#pragma once

#include <filesystem>
#include <string>

#include "common/status.h"
#include "sidecar/delivery/output_spec.h"

namespace flowmesh::sidecar {

// The absolute path of the task's directory; touches no disk. InvalidArgument when `task_id` is no
// plain file name.
absl::StatusOr<std::filesystem::path> ResolveTaskDir(const OutputSpec& output,
                                                     const std::string& task_id,
                                                     const std::filesystem::path& results_dir);

// Makes the directory with `logs/` and `artifacts/`, and removes what an earlier attempt wrote:
// `responses.json`, `manifest.json` and halves of them. Other files of an earlier attempt stay.
absl::Status PrepareTaskDir(const std::filesystem::path& dir);

}  // namespace flowmesh::sidecar
