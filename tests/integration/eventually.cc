#include "tests/integration/eventually.h"

#include "absl/time/clock.h"
#include "common/clock.h"

namespace flowmesh::testing {

bool Eventually(const std::function<bool()>& condition, absl::Duration timeout) {
  const absl::Duration deadline = Clock::Real().Monotonic() + timeout;
  while (!condition()) {
    if (Clock::Real().Monotonic() > deadline) return condition();
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

}  // namespace flowmesh::testing
