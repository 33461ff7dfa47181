#include "executors/agent/tools/usage.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;

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
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end;
       !error && it != end && bytes <= most; it.increment(error)) {
    struct stat info;
    if (::lstat(it->path().c_str(), &info) == 0)
      bytes += static_cast<uint64_t>(info.st_blocks) * 512;
  }
  return bytes;
}

}  // namespace flowmesh::agent
