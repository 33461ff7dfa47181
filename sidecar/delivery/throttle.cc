#include "sidecar/delivery/throttle.h"

#include <algorithm>

namespace flowmesh::sidecar {

absl::Duration Throttle::Reserve(uint64_t bytes, absl::Duration earliest) {
  if (!rate_) return earliest;
  absl::MutexLock lock(&mutex_);
  free_ = std::max(earliest, free_) + absl::Seconds(static_cast<double>(bytes) / *rate_);
  return free_;
}

}  // namespace flowmesh::sidecar
