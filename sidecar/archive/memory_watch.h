// For tests and benchmarks: how much memory something takes at most.
#pragma once

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <thread>

namespace flowmesh::sidecar {

// Looks at this process's own memory every millisecond. A sanitizer's bookkeeping is not ours: with
// one, it sees nothing.
class MemoryWatch {
 public:
  MemoryWatch() : before_(AtBeginning()), most_(before_), thread_([this] { Loop(); }) {}
  ~MemoryWatch() { Stop(); }

  // Bytes more than at the beginning; ends the watch.
  uint64_t MostMore() {
    Stop();
    return most_ - before_;
  }

 private:
  static uint64_t AtBeginning() {
    ::malloc_trim(0);  // what others have freed must not serve us unseen
    return Resident();
  }
  static uint64_t Resident() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 0;
#else
    std::ifstream statm("/proc/self/statm");
    uint64_t total = 0, resident = 0, shared = 0;
    statm >> total >> resident >> shared;
    return (resident - shared) * 4096;
#endif
  }
  void Loop() {
    while (!ending_) {
      most_ = std::max(most_, Resident());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void Stop() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
  }

  const uint64_t before_;
  uint64_t most_;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

}  // namespace flowmesh::sidecar
