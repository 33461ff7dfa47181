#include "executors/engine/memory.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace flowmesh::engine {
namespace {

// The number after `key` in a file of `key value` lines.
std::optional<uint64_t> ReadKey(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    uint64_t value = 0;
    if (word == key && file >> value) return value;
  }
  return std::nullopt;
}

// The one number of a file; nothing for others, such as the word `max`.
std::optional<uint64_t> ReadNumber(const std::filesystem::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

}  // namespace

uint64_t FreeHostBytes(const std::filesystem::path& root) {
  uint64_t free = std::numeric_limits<uint64_t>::max();
  if (const auto kilobytes = ReadKey(root / "proc/meminfo", "MemAvailable:")) {
    free = *kilobytes * 1024;
  }
  const std::filesystem::path group = root / "sys/fs/cgroup";
  const auto limit = ReadNumber(group / "memory.max");
  const auto used = ReadNumber(group / "memory.current");
  if (limit && used) {
    // Pages of files that nobody uses just now are given up when memory gets short.
    const uint64_t cached = ReadKey(group / "memory.stat", "inactive_file").value_or(0);
    const uint64_t needed = *used - std::min(*used, cached);
    free = std::min(free, *limit - std::min(*limit, needed));
  }
  return free == std::numeric_limits<uint64_t>::max() ? 0 : free;
}

GpuMemory ReadGpuMemory(c10::Device device) {
  c10::DeviceAllocator* allocator = c10::getDeviceAllocator(device.type());
  const auto [free, total] = allocator->getMemoryInfo(device.index());
  const c10::CachingDeviceAllocator::DeviceStats stats = allocator->getDeviceStats(device.index());
  constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return {.total = total,
          .free = free,
          .held = static_cast<uint64_t>(stats.reserved_bytes[kAll].current),
          .used = static_cast<uint64_t>(stats.allocated_bytes[kAll].current)};
}

uint64_t GpuShare(const GpuMemory& memory, double utilization) {
  const auto total = static_cast<double>(memory.total);
  // What was free before the weights came.
  const double free_share = static_cast<double>(memory.free + memory.held) / total;
  if (free_share - 0.05 < utilization) {
    utilization = free_share > 0.05 ? free_share - 0.05 : 0.8 * free_share;
  }
  const double share = std::clamp(utilization, 0.02, 0.98) * total;
  return static_cast<uint64_t>(std::max(0.0, share - static_cast<double>(memory.used)));
}

}  // namespace flowmesh::engine
