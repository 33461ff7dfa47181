#include "sidecar/delivery/task_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/task_folder.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

// True when it was made just now; false when it stood there already.
absl::StatusOr<bool> MakeDirectory(const fs::path& dir) {
  if (::mkdir(dir.c_str(), 0755) == 0) return true;
  if (errno == ENOENT) {
    RETURN_IF_ERROR(MakeDirectories(dir.parent_path()));
    if (::mkdir(dir.c_str(), 0755) == 0) return true;
  }
  if (errno != EEXIST) return ErrnoError("cannot create folder", dir);
  std::error_code error;
  if (fs::is_directory(dir, error)) return false;
  return absl::FailedPreconditionError(
      absl::StrCat("cannot create folder ", dir.string(), ": a file of that name is in the way"));
}

// The two files of an earlier attempt, and halves of them.
absl::Status RemoveOldResults(const fs::path& dir) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    bool old = false;
    for (const char* file : {kResponsesFile, kManifestFile}) {
      old = old || name == file || name.rfind(absl::StrCat(".", file, "."), 0) == 0;
    }
    if (old && ::unlink(entry.path().c_str()) != 0)
      return ErrnoError("cannot remove", entry.path());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<fs::path> ResolveTaskDir(const OutputSpec& output, const std::string& task_id,
                                        const fs::path& results_dir) {
  if (!IsPlainFileName(task_id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("task_id: expected a plain file name, got \"", task_id, "\""));
  }
  const bool has_path =
      output.destination == OutputSpec::Destination::kLocal && !output.path.empty();
  fs::path dir = (has_path ? results_dir / output.path : results_dir).lexically_normal();
  if (!dir.has_filename()) dir = dir.parent_path();  // a trailing slash
  return dir.filename() == task_id ? dir : dir / task_id;
}

absl::Status PrepareTaskDir(const fs::path& dir) {
  ASSIGN_OR_RETURN(const bool is_new, MakeDirectory(dir));
  if (!is_new) RETURN_IF_ERROR(RemoveOldResults(dir));
  RETURN_IF_ERROR(MakeDirectory(dir / kLogsDir).status());
  return MakeDirectory(dir / kArtifactsDir).status();
}

}  // namespace flowmesh::sidecar
