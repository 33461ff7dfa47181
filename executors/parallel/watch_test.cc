// The watch over collectives that a backend can be asked about, as on a GPU.
#include "executors/parallel/watch.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "absl/synchronization/notification.h"

namespace flowmesh::parallel {
namespace {

// What the group's error is after a collective that is asked whether it is done, which `done` and
// `abort` answer. The world has one rank, so nobody else can be the cause.
absl::Status FailureOf(absl::Duration timeout, const std::function<bool()>& done,
                       const std::function<void()>& abort) {
  absl::Notification is_aborted;
  Watch watch(c10::make_intrusive<c10d::HashStore>(), {.timeout = timeout}, [&] {
    is_aborted.Notify();
    abort();
  });
  watch.AbortWhenLate(watch.Begin("all_reduce", 8), done);
  is_aborted.WaitForNotification();
  return watch.failure();
}

TEST(WatchTest, AQuestionThatFailsEndsTheGroupAndNotTheProcess) {
  const absl::Status status = FailureOf(
      absl::Minutes(10), []() -> bool { throw std::runtime_error("CUDA error: lost\nframes"); },
      [] { throw std::runtime_error("cannot abort"); });
  EXPECT_EQ(status, absl::InternalError("all_reduce #1 (8 bytes) failed: CUDA error: lost"));
}

TEST(WatchTest, ACollectiveThatIsNeverDoneIsAborted) {
  const absl::Status status = FailureOf(
      absl::Milliseconds(1), [] { return false; }, [] {});
  EXPECT_EQ(status, absl::DeadlineExceededError(
                        "all_reduce #1 (8 bytes) did not finish within 1ms: it did not end"));
}

}  // namespace
}  // namespace flowmesh::parallel
