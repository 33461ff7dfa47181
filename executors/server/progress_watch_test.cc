#include "executors/server/progress_watch.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/synchronization/notification.h"

namespace flowmesh::executor {
namespace {

TEST(ProgressWatch, SilenceForTheBoundIsAHang) {
  FakeClock clock;
  std::atomic<int> hung{0};
  absl::Notification noticed;
  ProgressWatch watch(clock, absl::Seconds(10), [&] {
    ++hung;
    noticed.Notify();
  });
  for (int step = 0; step < 5; ++step) {
    clock.Advance(absl::Seconds(9));
    watch.Touch();
  }
  EXPECT_EQ(hung, 0);
  clock.Advance(absl::Seconds(10));
  EXPECT_TRUE(noticed.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(hung, 1);
}

TEST(ProgressWatch, ATaskThatIsOverHangsNoMore) {
  FakeClock clock;
  std::atomic<int> hung{0};
  {
    const ProgressWatch watch(clock, absl::Seconds(10), [&] { ++hung; });
  }
  clock.Advance(absl::Seconds(100));
  EXPECT_EQ(hung, 0);
}

TEST(ProgressWatch, WithoutABoundNothingHangs) {
  FakeClock clock;
  std::atomic<int> hung{0};
  const ProgressWatch watch(clock, absl::InfiniteDuration(), [&] { ++hung; });
  clock.Advance(absl::Hours(100));
  EXPECT_EQ(hung, 0);
}

}  // namespace
}  // namespace flowmesh::executor
