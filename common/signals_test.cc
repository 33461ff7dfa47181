#include "common/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "absl/synchronization/mutex.h"

namespace flowmesh {
namespace {

// Signals go to any thread that lets them through, so each test body runs in a process that has
// started no thread yet: gtest's own, started anew for it.
class SignalsDeathTest : public ::testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

// How often signals have come.
class Count {
 public:
  void Set(int count) {
    absl::MutexLock lock(&mutex_);
    count_ = count;
  }
  void WaitFor(int count) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return count_ >= count; };
    mutex_.Await(absl::Condition(&reached));
  }

 private:
  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

[[noreturn]] void CountSignals() {
  ::alarm(20);
  BlockTerminationSignals();
  Count count;
  {
    SignalWatcher watcher([&](int so_far) { count.Set(so_far); });
    ::kill(::getpid(), SIGTERM);
    count.WaitFor(1);
    ::kill(::getpid(), SIGINT);
    count.WaitFor(2);
    ::kill(::getpid(), SIGTERM);
    count.WaitFor(3);
    ::kill(::getpid(), SIGHUP);
    count.WaitFor(4);
  }
  std::_Exit(42);
}

TEST_F(SignalsDeathTest, EachSignalIsACallWithItsNumber) {
  EXPECT_EXIT(CountSignals(), ::testing::ExitedWithCode(42), "");
}

[[noreturn]] void WatchNothing() {
  ::alarm(20);
  BlockTerminationSignals();
  bool called = false;
  {
    SignalWatcher watcher([&](int) { called = true; });
  }
  std::_Exit(called ? 1 : 42);
}

TEST_F(SignalsDeathTest, EndsWithoutASignal) {
  EXPECT_EXIT(WatchNothing(), ::testing::ExitedWithCode(42), "");
}

[[noreturn]] void WriteToNobody() {
  BlockTerminationSignals();
  int ends[2];
  if (::pipe(ends) != 0) std::_Exit(1);
  ::close(ends[0]);
  std::_Exit(::write(ends[1], "x", 1) < 0 && errno == EPIPE ? 42 : 1);
}

[[noreturn]] void WriteBeyondTheLimit() {
  BlockTerminationSignals();
  const rlimit limit{.rlim_cur = 4, .rlim_max = RLIM_INFINITY};
  std::FILE* file = std::tmpfile();
  if (file == nullptr || ::setrlimit(RLIMIT_FSIZE, &limit) != 0) std::_Exit(1);
  const int fd = ::fileno(file);
  const bool begun = ::write(fd, "12345", 5) == 4;
  std::_Exit(begun && ::write(fd, "5", 1) < 0 && errno == EFBIG ? 42 : 1);
}

TEST_F(SignalsDeathTest, AFileThatMayNotGrowIsAnErrorAndNoSignal) {
  EXPECT_EXIT(WriteBeyondTheLimit(), ::testing::ExitedWithCode(42), "");
}

TEST_F(SignalsDeathTest, AClosedPipeIsAnErrorAndNoSignal) {
  EXPECT_EXIT(WriteToNobody(), ::testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace flowmesh
