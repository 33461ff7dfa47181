// The heartbeats of a line's worker, as seen from outside.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/clock.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {

// When the next `count` beats came, monotonic.
inline std::vector<absl::Duration> Beats(Line& line, int count) {
  std::vector<absl::Duration> times;
  std::string last = FormatTimestamp(absl::Now());
  for (int i = 0; i < count; ++i) {
    const auto beat = line.events().WaitFor(
        [&](const Json& e) { return e["type"] == "HEARTBEAT" && e["ts"] > last; });
    EXPECT_TRUE(beat);
    if (!beat) break;
    last = (*beat)["ts"].get<std::string>();
    times.push_back(Clock::Real().Monotonic());
  }
  return times;
}

// No beat is off by a tenth.
inline void ExpectSteady(const std::vector<absl::Duration>& beats, absl::Duration interval) {
  for (size_t i = 1; i < beats.size(); ++i) {
    EXPECT_GT(beats[i] - beats[i - 1], interval * 0.9) << i;
    EXPECT_LT(beats[i] - beats[i - 1], interval * 1.1) << i;
  }
}

}  // namespace flowmesh::testing
