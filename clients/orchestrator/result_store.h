// Results and uploaded files below RESULTS_DIR, one folder per task (PROTOCOL.md 6.1, 12.1).
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

// The folder name of a task: every character but letters, digits, `-` and `_` becomes `_`, so that
// no id leaves RESULTS_DIR.
std::string FolderName(std::string_view task_id);

// Thread-safe: the file system is its only state.
class ResultStore {
 public:
  ResultStore(std::filesystem::path root, const Clock& clock)
      : root_(std::move(root)), clock_(clock) {}

  std::filesystem::path Folder(std::string_view task_id) const {
    return root_ / FolderName(task_id);
  }

  // Writes `responses.json` and the manifest; returns the former's path. `artifacts`: as declared.
  absl::StatusOr<std::filesystem::path> StoreResult(
      const std::string& task_id, const Json& document,
      const std::vector<std::string>& artifacts) const;
  bool HasResult(std::string_view task_id) const;
  // NotFound when there is none.
  absl::StatusOr<std::string> LoadResultText(std::string_view task_id) const;
  absl::StatusOr<Json> LoadResult(std::string_view task_id) const;

  // A file on its way into `artifacts/`. `name` must have passed IsBareFileName.
  absl::StatusOr<DotFile> BeginUpload(std::string_view task_id, std::string_view name) const;
  // From `artifacts/`, else from the folder itself. NotFound.
  absl::StatusOr<std::filesystem::path> FindFile(std::string_view task_id,
                                                 std::string_view name) const;

 private:
  std::filesystem::path root_;
  const Clock& clock_;
};

// No path separators, no NUL, not empty, not `.` or `..`.
bool IsBareFileName(std::string_view name);

}  // namespace flowmesh::orchestrator
