// What running programs take of the machine.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>

namespace flowmesh::agent {

struct ProcessUse {
  int processes = 0;
  uint64_t memory_bytes = 0;  // resident and their own: of no file
};

// Of the process `root`, all that it has started and its process group, as /proc tells it now.
ProcessUse UseOf(pid_t root);

// What the files below a folder take on the disk. Stops counting above `most`. Folders that their
// owner may not read become readable to it. The greatest number: not all can be counted, because it
// lies too deep or is another's.
uint64_t DiskUse(const std::filesystem::path& folder, uint64_t most);

}  // namespace flowmesh::agent
