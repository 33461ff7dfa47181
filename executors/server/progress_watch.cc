#include "executors/server/progress_watch.h"

#include <utility>

namespace flowmesh::executor {

ProgressWatch::ProgressWatch(const Clock& clock, absl::Duration bound,
                             std::function<void()> on_hung)
    : clock_(clock), bound_(bound), on_hung_(std::move(on_hung)), touched_(clock.Monotonic()) {
  if (bound_ != absl::InfiniteDuration()) thread_ = std::thread([this] { Watch(); });
}

ProgressWatch::~ProgressWatch() {
  {
    absl::MutexLock lock(&mutex_);
    over_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ProgressWatch::Touch() {
  absl::MutexLock lock(&mutex_);
  touched_ = clock_.Monotonic();
}

void ProgressWatch::Watch() {
  {
    absl::MutexLock lock(&mutex_);
    while (true) {
      const absl::Duration left = touched_ + bound_ - clock_.Monotonic();
      if (left <= absl::ZeroDuration()) break;
      if (clock_.Await(mutex_, absl::Condition(&over_), left)) return;
    }
    if (over_) return;
  }
  on_hung_();
}

}  // namespace flowmesh::executor
