#include "sidecar/journal/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "sidecar/journal/journal.h"

namespace flowmesh::sidecar {
namespace {

constexpr int kMostSidecars = 1000;

// FailedPrecondition: somebody else holds it.
absl::StatusOr<StateDir> Take(const std::filesystem::path& path) {
  RETURN_IF_ERROR(MakeDirectories(path));
  // Task documents, with the headers of their destinations, are kept in it (promise P19).
  if (::chmod(path.c_str(), 0700) != 0) {
    LogWarning("others may read it: {}", Message(ErrnoError("cannot change the mode of", path)));
  }
  const std::filesystem::path file = path / "lock";
  UniqueFd lock(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) return ErrnoError("cannot open", file);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), " is in use by another sidecar"));
  }
  return StateDir{.path = path, .lock = std::move(lock)};
}

}  // namespace

absl::StatusOr<StateDir> OpenStateDir(const std::filesystem::path& root,
                                      const std::string& worker_id) {
  if (!worker_id.empty()) return Take(root / worker_id);
  std::optional<StateDir> free;
  for (int i = 0; i < kMostSidecars; ++i) {
    const std::filesystem::path path = root / absl::StrCat("auto-", i);
    std::error_code error;
    // The folders are numbered without gaps: the first that is missing is the last to look at.
    const bool exists = std::filesystem::exists(path, error);
    if (!exists && free) break;
    absl::StatusOr<StateDir> taken = Take(path);
    if (absl::IsFailedPrecondition(taken.status())) continue;
    RETURN_IF_ERROR(taken.status());
    if (!exists || Journal::HoldsWork(taken->journal())) return taken;
    if (!free) free = *std::move(taken);
  }
  if (free) return *std::move(free);
  return absl::FailedPreconditionError(absl::StrCat("no free auto-N folder in ", root.string()));
}

}  // namespace flowmesh::sidecar
