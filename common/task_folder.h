// The folder of a task, which the sidecar fills and the orchestrator keeps (PROTOCOL.md 6.1): its
// names, and `manifest.json`, which says what stands there and which declared artifacts are
// missing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh {

inline constexpr char kResponsesFile[] = "responses.json";
inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr char kLogsDir[] = "logs";
inline constexpr char kArtifactsDir[] = "artifacts";
inline constexpr char kCheckpointsDir[] = "checkpoints";

// A declared artifact's name in the folder: ` ./final_model/ ` -> `final_model`. Empty: none.
std::string_view ArtifactName(std::string_view declared);

// A file whose digest was computed as it was written, so that nobody reads it again.
struct FileDigest {
  uint64_t size = 0;
  std::string sha256;  // 64 lower-case hex digits
};
using KnownFiles = std::map<std::string, FileDigest>;  // by name in the task's directory

// The manifest of `dir` as it stands now. Symbolic links out of the directory, names that are
// absolute or contain `..`, devices, pipes and sockets are never opened and count as missing; links
// inside directories are not counted.
Json MakeManifest(const std::filesystem::path& dir, const std::string& task_id,
                  const std::vector<std::string>& artifacts, absl::Time now,
                  const KnownFiles& known = {});

// Writes `responses.json`, unless its text is nothing, and then the manifest; both atomically.
absl::Status WriteResultFiles(const std::filesystem::path& dir, const std::string& task_id,
                              const std::vector<std::string>& artifacts, const Clock& clock,
                              const std::optional<std::string>& responses = std::nullopt);

}  // namespace flowmesh
