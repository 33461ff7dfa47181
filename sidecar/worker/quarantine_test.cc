#include "sidecar/worker/quarantine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

using ::testing::HasSubstr;

class QuarantineTest : public ::testing::Test {
 protected:
  FakeClock clock_;
};

TEST_F(QuarantineTest, EachDeathDelaysTheNextTryAndTheThirdHoldsTheTask) {
  Quarantine quarantine({}, clock_);
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::ZeroDuration());
  quarantine.CountDeath("t", "a");
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::Seconds(1));
  clock_.Advance(absl::Milliseconds(400));
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::Milliseconds(600));
  clock_.Advance(absl::Seconds(5));
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::ZeroDuration());
  quarantine.CountDeath("t", "a");
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::Seconds(2));
  EXPECT_EQ(quarantine.WhyHeld("t", "a"), "");
  quarantine.CountDeath("t", "a");
  EXPECT_THAT(quarantine.WhyHeld("t", "a"), HasSubstr("quarantined: 3 runs of it"));
  EXPECT_EQ(quarantine.WhyHeld("another", "a"), "");
}

TEST_F(QuarantineTest, AnotherDocumentOrASuccessBeginsAnew) {
  Quarantine quarantine({.deaths = 1}, clock_);
  quarantine.CountDeath("t", "a");
  EXPECT_EQ(quarantine.WhyHeld("t", "b"), "");
  EXPECT_EQ(quarantine.Delay("t", "b"), absl::ZeroDuration());
  quarantine.CountDeath("t", "b");
  EXPECT_EQ(quarantine.WhyHeld("t", "a"), "");
  quarantine.Forget("t");
  quarantine.Forget("t");
  EXPECT_EQ(quarantine.WhyHeld("t", "b"), "");
}

TEST_F(QuarantineTest, TheDelayIsBounded) {
  Quarantine quarantine({.deaths = 1000}, clock_);
  for (int i = 0; i < 100; ++i) quarantine.CountDeath("t", "a");
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::Minutes(1));
}

TEST_F(QuarantineTest, ZeroDeathsTurnItOff) {
  Quarantine quarantine({.deaths = 0}, clock_);
  for (int i = 0; i < 10; ++i) quarantine.CountDeath("t", "a");
  EXPECT_EQ(quarantine.WhyHeld("t", "a"), "");
  EXPECT_EQ(quarantine.Delay("t", "a"), absl::ZeroDuration());
}

TEST_F(QuarantineTest, TheOldestIsForgotten) {
  Quarantine quarantine({.deaths = 1, .tasks = 2}, clock_);
  for (const char* id : {"a", "b", "b", "c"}) quarantine.CountDeath(id, "f");
  EXPECT_EQ(quarantine.WhyHeld("a", "f"), "");
  EXPECT_NE(quarantine.WhyHeld("b", "f"), "");
  EXPECT_NE(quarantine.WhyHeld("c", "f"), "");
}

}  // namespace
}  // namespace flowmesh::sidecar
