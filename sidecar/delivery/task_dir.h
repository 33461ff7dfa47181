// The directory of a task (PROTOCOL.md 6.1).
#pragma once

#include <filesystem>
#include <string>

#include "common/status.h"
#include "sidecar/delivery/output_spec.h"

namespace flowmesh::sidecar {

inline constexpr char kResponsesFile[] = "responses.json";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kLogsDir[] = "logs";
inline constexpr char kArtifactsDir[] = "artifacts";
inline constexpr char kCheckpointsDir[] = "checkpoints";

// The absolute path of the task's directory; touches no disk. InvalidArgument when `task_id` is no
// plain file name.
absl::StatusOr<std::filesystem::path> ResolveTaskDir(const OutputSpec& output,
                                                     const std::string& task_id,
                                                     const std::filesystem::path& results_dir);

// Makes the directory with `logs/` and `artifacts/`, and removes what an earlier attempt wrote:
// `responses.json`, `manifest.json` and halves of them. Other files of an earlier attempt stay.
absl::Status PrepareTaskDir(const std::filesystem::path& dir);

}  // namespace flowmesh::sidecar
