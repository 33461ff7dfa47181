// For tests of what waits long.
#pragma once

#include "common/clock.h"

namespace flowmesh {

// A fake clock on which every wait is over at once, and took its time.
class JumpingClock : public FakeClock {
 public:
  bool Await(absl::Mutex&, const absl::Condition& condition,
             absl::Duration timeout) const override ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const_cast<JumpingClock*>(this)->Advance(timeout);
    return condition.Eval();
  }
};

}  // namespace flowmesh
