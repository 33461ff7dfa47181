// Bytes in, one gzip member out, compressed by several threads.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "sidecar/archive/byte_sink.h"

namespace flowmesh::sidecar {

// More of them would only wait for the digest of what they make.
inline constexpr int kMaxGzipThreads = 16;

// The output depends on the input and the level alone, neither on the threads nor on the pieces
// that the input comes in. Memory is bounded by the threads. For one thread, in which the sink is
// called too; the threads of its own end with it.
class ParallelGzip {
 public:
  // `level`: see BlockDeflater. `threads`: 1 to kMaxGzipThreads, others are clamped.
  ParallelGzip(int level, int threads, ByteSink sink);
  ~ParallelGzip();

  // After an error of the sink, which is passed on, only destruction is allowed.
  absl::Status Write(std::string_view bytes);
  absl::Status Finish();

 private:
  struct Block {
    std::vector<char> input;
    std::vector<unsigned char> output;
    bool done = false;  // under mutex_; input and output belong to one side at a time
  };

  void Work(int level);
  absl::Status Begin();
  absl::Status Submit();
  // Hands the oldest block on, waiting for it, and keeps it for later use.
  absl::Status PassOn();
  bool OldestIsDone();

  const ByteSink sink_;
  const size_t max_in_flight_;
  bool begun_ = false;
  uint32_t crc_ = 0;
  uint64_t size_ = 0;
  std::unique_ptr<Block> current_;                // being filled
  std::deque<std::unique_ptr<Block>> in_flight_;  // in the order of the input
  std::vector<std::unique_ptr<Block>> free_;

  absl::Mutex mutex_;
  std::deque<Block*> queue_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace flowmesh::sidecar
