// `manifest.json`: what stands in a task's directory, and which of the declared artifacts are
// missing (PROTOCOL.md 6.1).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::sidecar {

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

}  // namespace flowmesh::sidecar
