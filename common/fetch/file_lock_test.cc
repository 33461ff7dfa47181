#include "common/fetch/file_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

namespace flowmesh {
namespace {

TEST(FileLockTest, OneHoldsItAndTheNextWaits) {
  const TempDir folder;
  std::optional<FileLock> first = FileLock::Take(folder / "a/lock", nullptr).value();
  std::atomic<int> polls = 0;
  std::atomic<bool> held = false;
  std::thread second([&] {
    held = FileLock::Take(folder / "a/lock", [&] {
             ++polls;
             return false;
           }).ok();
  });
  while (polls == 0) std::this_thread::yield();  // it waits
  EXPECT_FALSE(held);
  first.reset();
  second.join();
  EXPECT_TRUE(held);
}

TEST(FileLockTest, WaitingCanBeCancelled) {
  const TempDir folder;
  const auto first = FileLock::Take(folder / "lock", nullptr);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(absl::IsCancelled(FileLock::Take(folder / "lock", [] { return true; }).status()));
}

TEST(FileLockTest, AFolderThatCannotBeMadeIsNamed) {
  EXPECT_FALSE(FileLock::Take("/proc/none/lock", nullptr).ok());
}

}  // namespace
}  // namespace flowmesh
