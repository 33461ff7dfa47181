#include "sidecar/journal/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {
namespace {

constexpr int kMostSidecars = 1000;

// FailedPrecondition: somebody else holds it.
absl::StatusOr<StateDir> Take(const std::filesystem::path& path) {
  RETURN_IF_ERROR(MakeDirectories(path));
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
  for (int i = 0; i < kMostSidecars; ++i) {
    absl::StatusOr<StateDir> taken = Take(root / absl::StrCat("auto-", i));
    if (!absl::IsFailedPrecondition(taken.status())) return taken;
  }
  return absl::FailedPreconditionError(absl::StrCat("no free auto-N folder in ", root.string()));
}

}  // namespace flowmesh::sidecar
