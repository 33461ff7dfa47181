#include "sidecar/archive/parallel_gzip.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <utility>

#include "sidecar/archive/block_deflater.h"

namespace flowmesh::sidecar {
namespace {

// Large enough that what a block loses by not looking back does not show, small enough that the
// blocks of all threads stay small.
constexpr size_t kBlockSize = 256 << 10;

// Deflate, no name, no time, made on Unix.
constexpr std::string_view kHeader("\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
// An empty stored block that is the last one.
constexpr std::string_view kLastBlock("\x01\0\0\xff\xff", 5);

std::string LittleEndian(uint32_t value) {
  std::string bytes;
  for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

std::string_view View(const std::vector<unsigned char>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

ParallelGzip::ParallelGzip(int level, int threads, ByteSink sink)
    : sink_(std::move(sink)),
      // One more is being filled, and one being written.
      max_in_flight_(static_cast<size_t>(std::clamp(threads, 1, kMaxGzipThreads)) + 2) {
  for (size_t i = 0; i + 2 < max_in_flight_; ++i) {
    threads_.emplace_back([this, level] { Work(level); });
  }
}

ParallelGzip::~ParallelGzip() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    queue_.clear();
  }
  for (std::thread& thread : threads_) thread.join();
}

void ParallelGzip::Work(int level) {
  BlockDeflater deflater(level);
  absl::MutexLock lock(&mutex_);
  const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || !queue_.empty();
  };
  while (true) {
    mutex_.Await(absl::Condition(&has_work));
    if (ending_) return;
    Block* block = queue_.front();
    queue_.pop_front();
    mutex_.Unlock();
    deflater.Deflate({block->input.data(), block->input.size()}, block->output);
    mutex_.Lock();
    block->done = true;
  }
}

absl::Status ParallelGzip::Begin() {
  if (begun_) return absl::OkStatus();
  begun_ = true;
  return sink_(kHeader);
}

absl::Status ParallelGzip::Write(std::string_view bytes) {
  RETURN_IF_ERROR(Begin());
  size_ += bytes.size();
  crc_ = crc32_gzip_refl(crc_, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  while (!bytes.empty()) {
    if (current_ == nullptr) {
      if (free_.empty()) {
        current_ = std::make_unique<Block>();
        current_->input.reserve(kBlockSize);
      } else {
        current_ = std::move(free_.back());
        free_.pop_back();
      }
    }
    std::vector<char>& input = current_->input;
    const std::string_view piece = bytes.substr(0, kBlockSize - input.size());
    input.insert(input.end(), piece.begin(), piece.end());
    bytes.remove_prefix(piece.size());
    if (input.size() == kBlockSize) RETURN_IF_ERROR(Submit());
  }
  return absl::OkStatus();
}

absl::Status ParallelGzip::Submit() {
  {
    absl::MutexLock lock(&mutex_);
    queue_.push_back(current_.get());
  }
  in_flight_.push_back(std::move(current_));
  while (in_flight_.size() >= max_in_flight_ || OldestIsDone()) RETURN_IF_ERROR(PassOn());
  return absl::OkStatus();
}

bool ParallelGzip::OldestIsDone() {
  if (in_flight_.empty()) return false;
  absl::MutexLock lock(&mutex_);
  return in_flight_.front()->done;
}

absl::Status ParallelGzip::PassOn() {
  std::unique_ptr<Block>& oldest = in_flight_.front();
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&oldest->done));
    oldest->done = false;
  }
  RETURN_IF_ERROR(sink_(View(oldest->output)));
  oldest->input.clear();
  free_.push_back(std::move(oldest));
  in_flight_.pop_front();
  return absl::OkStatus();
}

absl::Status ParallelGzip::Finish() {
  RETURN_IF_ERROR(Begin());
  if (current_ != nullptr) RETURN_IF_ERROR(Submit());
  while (!in_flight_.empty()) RETURN_IF_ERROR(PassOn());
  RETURN_IF_ERROR(sink_(kLastBlock));
  return sink_(LittleEndian(crc_) + LittleEndian(static_cast<uint32_t>(size_)));
}

}  // namespace flowmesh::sidecar
