// Exchanges gradients while the backward pass still computes others: one flat buffer is cut into
// buckets, from its end to its begin, which is about the order in which gradients become ready, and
// the sum over ranks of a bucket is begun as soon as all of its elements are ready.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/status.h"
#include "executors/parallel/process_group.h"

namespace flowmesh::parallel {

enum class Exchange {
  kAllReduce,      // every rank gets every sum
  kReduceScatter,  // each rank gets the sums of its own piece (see OwnPieces), the rest is
                   // undefined
};

// MarkReady may be called by any threads, the other methods by one; each rank must call Finish as
// often. No other collective of the group may begin between the first MarkReady of a round and the
// end of Finish. The group must outlive this.
class GradientBuckets {
 public:
  static constexpr int64_t kBucketBytes = 25 << 20;

  // `buffer` is flat and contiguous, and its memory stays the same. For kReduceScatter its size is
  // a multiple of the world size (pad it); so is each bucket then.
  GradientBuckets(ProcessGroup& group, at::Tensor buffer, Exchange exchange,
                  int64_t bucket_bytes = kBucketBytes);

  // These elements are final on this rank. Begins the buckets that are complete now, in the same
  // order on all ranks. Each element once between two calls of Finish.
  void MarkReady(int64_t offset, int64_t count);

  // Begins what nobody marked as ready (parameters that got no gradient), waits for all buckets,
  // and makes ready for the next round. The first error of any bucket; FailedPrecondition: elements
  // were marked twice. On a GPU the current stream waits, not the host.
  absl::Status Finish();

  // Where this rank's sums are after kReduceScatter, one piece in each bucket, from the buffer's
  // begin to its end. With kAllReduce the whole buffer.
  struct Piece {
    int64_t offset = 0, count = 0;
  };
  std::vector<Piece> OwnPieces() const;

 private:
  struct Bucket {
    int64_t offset = 0, count = 0;
    int64_t missing = 0;  // elements that are not ready
    Pending pending;
  };

  void BeginComplete() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Pending Begin(const Bucket& bucket);

  ProcessGroup& group_;
  const at::Tensor buffer_;
  const Exchange exchange_;

  absl::Mutex mutex_;                                    // also orders the group's collectives
  std::vector<Bucket> buckets_ ABSL_GUARDED_BY(mutex_);  // from the buffer's end to its begin
  size_t begun_ ABSL_GUARDED_BY(mutex_) = 0;             // buckets, the first ones
  bool marked_twice_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t bucket_count_ = 0;  // elements of every bucket but the last
};

}  // namespace flowmesh::parallel
