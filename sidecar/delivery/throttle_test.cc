#include "sidecar/delivery/throttle.h"

#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

TEST(ThrottleTest, EachReservationFollowsTheLast) {
  Throttle throttle(1000.0);
  EXPECT_EQ(throttle.Reserve(500, absl::Seconds(10)), absl::Seconds(10.5));
  EXPECT_EQ(throttle.Reserve(2000, absl::Seconds(10.1)), absl::Seconds(12.5));
  // Time in which nobody sent is not saved up.
  EXPECT_EQ(throttle.Reserve(1000, absl::Seconds(100)), absl::Seconds(101));
}

TEST(ThrottleTest, WithoutARateNothingWaits) {
  Throttle throttle(std::nullopt);
  throttle.Reserve(uint64_t{1} << 60, absl::Seconds(1));
  EXPECT_EQ(throttle.Reserve(1, absl::Seconds(2)), absl::Seconds(2));
}

}  // namespace
}  // namespace flowmesh::sidecar
