#include "executors/parallel/gradient_buckets.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace flowmesh::parallel {

GradientBuckets::GradientBuckets(ProcessGroup& group, at::Tensor buffer, Exchange exchange,
                                 int64_t bucket_bytes)
    : group_(group), buffer_(std::move(buffer)), exchange_(exchange) {
  const int64_t world = group_.world_size();
  const auto element = static_cast<int64_t>(buffer_.element_size());
  bucket_count_ = std::max<int64_t>(1, bucket_bytes / element / world) * world;
  absl::MutexLock lock(&mutex_);
  for (int64_t end = buffer_.numel(); end > 0;) {
    const int64_t count = std::min(bucket_count_, end);
    Bucket bucket;
    bucket.offset = end - count;
    bucket.count = bucket.missing = count;
    buckets_.push_back(std::move(bucket));
    end -= count;
  }
}

void GradientBuckets::MarkReady(int64_t offset, int64_t count) {
  absl::MutexLock lock(&mutex_);
  const int64_t size = buffer_.numel();
  while (count > 0) {
    Bucket& bucket = buckets_[static_cast<size_t>((size - 1 - offset) / bucket_count_)];
    const int64_t here = std::min(count, bucket.offset + bucket.count - offset);
    bucket.missing -= here;
    marked_twice_ |= bucket.missing < 0;
    offset += here;
    count -= here;
  }
  BeginComplete();
}

void GradientBuckets::BeginComplete() {
  while (begun_ < buckets_.size() && buckets_[begun_].missing <= 0) {
    buckets_[begun_].pending = Begin(buckets_[begun_]);
    ++begun_;
  }
}

Pending GradientBuckets::Begin(const Bucket& bucket) {
  const at::Tensor in = buffer_.narrow(0, bucket.offset, bucket.count);
  if (exchange_ == Exchange::kAllReduce) return group_.AllReduceSum(in);
  const int64_t piece = bucket.count / group_.world_size();
  return group_.ReduceScatterSum(in.narrow(0, group_.rank() * piece, piece), in);
}

absl::Status GradientBuckets::Finish() {
  absl::MutexLock lock(&mutex_);
  for (Bucket& bucket : buckets_) bucket.missing = std::min<int64_t>(bucket.missing, 0);
  BeginComplete();
  absl::Status first;
  for (Bucket& bucket : buckets_) {
    first.Update(bucket.pending.Wait());
    bucket.pending = Pending();
    bucket.missing = bucket.count;
  }
  begun_ = 0;
  if (std::exchange(marked_twice_, false)) {
    first.Update(absl::FailedPreconditionError("gradients were marked as ready twice"));
  }
  return first;
}

std::vector<GradientBuckets::Piece> GradientBuckets::OwnPieces() const {
  const int64_t size = buffer_.numel();
  if (exchange_ == Exchange::kAllReduce) return {{.offset = 0, .count = size}};
  std::vector<Piece> pieces;
  for (int64_t end = size; end > 0; end -= std::min(bucket_count_, end)) {
    const int64_t count = std::min(bucket_count_, end), piece = count / group_.world_size();
    pieces.push_back({.offset = end - count + group_.rank() * piece, .count = piece});
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

}  // namespace flowmesh::parallel
