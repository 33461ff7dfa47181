#include "executors/launch/shared_memory.h"

#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace flowmesh::executor {

void AddSharedMemoryOf(pid_t pid, std::set<std::filesystem::path>& segments) {
  // A line ends with the name of what is mapped, and ` (deleted)` where that has lost its name.
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  std::string line;
  while (std::getline(maps, line)) {
    const size_t name = line.find(" /dev/shm/");
    if (name == std::string::npos || absl::EndsWith(line, " (deleted)")) continue;
    segments.insert(line.substr(name + 1));
  }
}

int RemoveSharedMemory(const std::set<std::filesystem::path>& segments) {
  int removed = 0;
  for (const std::filesystem::path& segment : segments) {
    std::error_code gone;
    if (std::filesystem::remove(segment, gone)) ++removed;
  }
  return removed;
}

}  // namespace flowmesh::executor
