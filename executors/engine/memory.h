// How much memory keys and values may take.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>

namespace flowmesh::engine {

// What this process may still take of the host's memory: the least of what the system has left and
// what its control group allows. `root`: where /proc and /sys/fs/cgroup are, `/` but for tests. 0
// when nothing can be read there.
uint64_t FreeHostBytes(const std::filesystem::path& root = "/");

// The bytes of a GPU that `utilization` (TASKS.md 2.2, `gpu_memory_utilization`) leaves for keys
// and values beside the weights, which are loaded already.
struct GpuMemory {
  uint64_t total = 0;
  uint64_t free = 0;
  uint64_t held = 0;  // by this process's tensors and its allocator
  uint64_t used = 0;  // of `held`, by tensors
};
GpuMemory ReadGpuMemory(c10::Device device);
uint64_t GpuShare(const GpuMemory& memory, double utilization);

}  // namespace flowmesh::engine
