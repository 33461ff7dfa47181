#include "common/fetch/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "common/clock.h"
#include "common/retry.h"

namespace flowmesh {

absl::StatusOr<FileLock> FileLock::Take(const std::filesystem::path& path,
                                        const std::function<bool()>& is_cancelled) {
  RETURN_IF_ERROR(MakeDirectories(path.parent_path()));
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoError("cannot open", path);
  while (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoError("cannot lock", path);
    const Clock& clock = Clock::Real();
    RETURN_IF_ERROR(WaitUntil(clock, clock.Monotonic() + absl::Milliseconds(50), is_cancelled));
  }
  return FileLock(std::move(fd));
}

}  // namespace flowmesh
