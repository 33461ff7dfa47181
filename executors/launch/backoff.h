// Delays between tries of something that keeps failing: doubling from a first delay up to a bound,
// reset by success only. Times are passed in; not thread-safe.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace flowmesh::executor {

class Backoff {
 public:
  Backoff(absl::Duration first, absl::Duration most) : first_(first), most_(most) {}

  void Failed(absl::Duration now) {
    delay_ = delay_ == absl::ZeroDuration() ? first_ : std::min(most_, delay_ * 2);
    next_try_ = now + delay_;
  }
  void Succeeded() {
    delay_ = absl::ZeroDuration();
    next_try_ = -absl::InfiniteDuration();
  }

  // How long to wait before the next try; zero when it is due.
  absl::Duration Wait(absl::Duration now) const {
    return std::max(absl::ZeroDuration(), next_try_ - now);
  }

 private:
  const absl::Duration first_, most_;
  absl::Duration delay_ = absl::ZeroDuration();
  absl::Duration next_try_ = -absl::InfiniteDuration();
};

}  // namespace flowmesh::executor
