#include "executors/agent/tools/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;

constexpr int kDeepest = 100;  // folder in a folder that is counted; each takes a descriptor

struct Process {
  pid_t parent = 0, group = 0;
};

// `<pid> (<name>) <state> <parent> <group> ...`; a name may hold anything.
Process ReadProcess(const fs::path& folder) {
  std::ifstream file(folder / "stat");
  std::string line;
  std::getline(file, line);
  Process process;
  const size_t end = line.rfind(')');
  if (end == std::string::npos || end + 3 > line.size()) return process;
  (void)std::sscanf(line.c_str() + end + 3, "%*c %d %d", &process.parent, &process.group);
  return process;
}

uint64_t ReadMemory(const fs::path& folder) {
  static const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  std::ifstream file(folder / "statm");
  uint64_t size = 0, resident = 0, shared = 0;
  file >> size >> resident >> shared;
  return (resident - std::min(shared, resident)) * page;
}

// Whether what the last call found is there no longer, or is something else by now.
bool HasGone() { return errno == ENOENT || errno == ENOTDIR || errno == ELOOP; }

// One that its mode closes is opened to its owner, for whom it can be listed from then on.
UniqueFd OpenFolder(int at, const char* name, int flags) {
  const UniqueFd handle(::openat(at, name, O_PATH | O_DIRECTORY | O_CLOEXEC | flags));
  struct stat info;
  if (!handle.valid() || ::fstat(handle.get(), &info) != 0) return UniqueFd();
  constexpr mode_t kListed = S_IRUSR | S_IXUSR;
  if ((info.st_mode & kListed) != kListed) {
    // Not by its name, which may be that of a link by now. Where it fails, so does the next line.
    const std::string self = absl::StrCat("/proc/self/fd/", handle.get());
    (void)::chmod(self.c_str(), (info.st_mode & 07777) | kListed);
  }
  return UniqueFd(::openat(handle.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

// Step by step: a whole path may be too long for the system. False: not all can be counted.
bool AddBelow(UniqueFd folder, int depth, uint64_t most, uint64_t& bytes) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::fdopendir(folder.get()), ::closedir);
  if (dir == nullptr) return false;
  const int fd = folder.Release();  // which is the stream's
  while (bytes <= most) {
    errno = 0;
    const dirent* entry = ::readdir(dir.get());
    if (entry == nullptr) return errno == 0 || HasGone();
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat info;
    if (::fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
      if (HasGone()) continue;
      return false;
    }
    bytes += static_cast<uint64_t>(info.st_blocks) * 512;
    if (!S_ISDIR(info.st_mode)) continue;
    if (depth == kDeepest) return false;
    UniqueFd inner = OpenFolder(fd, entry->d_name, O_NOFOLLOW);
    if (inner.valid() ? !AddBelow(std::move(inner), depth + 1, most, bytes) : !HasGone()) {
      return false;
    }
  }
  return true;
}

}  // namespace

ProcessUse UseOf(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  std::set<pid_t> wanted = {root};
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    int pid = 0;
    if (!absl::SimpleAtoi(it->path().filename().string(), &pid)) continue;
    const Process process = ReadProcess(it->path());
    children.emplace(process.parent, pid);
    if (process.group == root) wanted.insert(pid);
  }
  std::set<pid_t> seen;
  ProcessUse use;
  while (!wanted.empty()) {
    const pid_t pid = *wanted.begin();
    wanted.erase(wanted.begin());
    if (!seen.insert(pid).second) continue;
    ++use.processes;
    use.memory_bytes += ReadMemory(fs::path("/proc") / std::to_string(pid));
    const auto [begin, end] = children.equal_range(pid);
    for (auto it = begin; it != end; ++it) wanted.insert(it->second);
  }
  return use;
}

uint64_t DiskUse(const fs::path& folder, uint64_t most) {
  uint64_t bytes = 0;
  UniqueFd fd = OpenFolder(AT_FDCWD, folder.c_str(), 0);
  const bool is_counted = fd.valid() ? AddBelow(std::move(fd), 0, most, bytes) : HasGone();
  return is_counted ? bytes : std::numeric_limits<uint64_t>::max();
}

}  // namespace flowmesh::agent
