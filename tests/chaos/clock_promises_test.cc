// P22 of PROMISES.md: a wall clock that is stepped harms nothing. The sidecar's own is stepped
// under it (stepped_clock.cc); Redis, the executor and this test keep theirs.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>

#include "common/clock.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

absl::Duration Now() { return Clock::Real().Monotonic(); }

// The offset that the preloaded library reads.
class WallClock {
 public:
  WallClock() {
    EXPECT_TRUE(WriteFileAtomically(file(), std::string(sizeof(int64_t), '\0')).ok());
    const UniqueFd fd(::open(file().c_str(), O_RDWR | O_CLOEXEC));
    void* mapped =
        ::mmap(nullptr, sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(mapped, MAP_FAILED);
    offset_ = static_cast<std::atomic<int64_t>*>(mapped);
  }
  ~WallClock() { ::munmap(offset_, sizeof(int64_t)); }
  std::string file() const { return dir_ / "offset"; }
  void Step(absl::Duration step) { *offset_ += absl::ToInt64Nanoseconds(step); }

 private:
  TempDir dir_;
  std::atomic<int64_t>* offset_ = nullptr;
};

std::vector<Json> Beats(Line& line) {
  return line.events().All([](const Json& event) { return event["type"] == "HEARTBEAT"; });
}

// How far ahead of ours the clock is that wrote `event`.
absl::Duration Ahead(const Json& event) {
  return ParseTimestamp(event["ts"].get<std::string>()) - absl::Now();
}

// Beats come at their time, and tasks are done in no time at all.
void ExpectLife(Line& line) {
  size_t seen = Beats(line).size();
  absl::Duration last = Now();
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(Eventually([&] { return Beats(line).size() > seen; }, absl::Seconds(5)));
    ++seen;
    EXPECT_LT(Now() - last, absl::Seconds(1.5));
    // The first may have been due at any moment.
    EXPECT_GT(Now() - last, i > 0 ? absl::Seconds(0.5) : absl::ZeroDuration());
    last = Now();
  }
  const absl::Duration begin = Now();
  const std::string id = line.Dispatch(kEcho);
  const auto end = line.events().WaitForTerminal(id, absl::Seconds(10));
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  EXPECT_LT(Now() - begin, absl::Seconds(3));
  EXPECT_TRUE(line.WaitForStatus("IDLE", "w", absl::Seconds(5)));
  const Json ttl = line.redis().Command({"TTL", "worker:w:hb"});
  EXPECT_GT(ttl, 110);
  EXPECT_LE(ttl, 120);
}

TEST(Promises, P22_ASteppedWallClockHarmsNothing) {
  WallClock wall;
  Line line({.sidecar_env = {{"HEARTBEAT_INTERVAL_SEC", "1"},
                             {"LD_PRELOAD", std::getenv("STEPPED_CLOCK_LIBRARY")},
                             {"STEPPED_CLOCK_FILE", wall.file()}}});
  ASSERT_NO_FATAL_FAILURE(ExpectLife(line));
  absl::Duration offset;
  for (const absl::Duration step :
       {absl::Hours(1), -absl::Hours(3), absl::Hours(24 * 365), -absl::Hours(24 * 400)}) {
    SCOPED_TRACE(absl::FormatDuration(step));
    // In the middle of everything that waits.
    wall.Step(step);
    offset += step;
    ASSERT_NO_FATAL_FAILURE(ExpectLife(line));
    // It was stepped indeed.
    EXPECT_LT(absl::AbsDuration(Ahead(Beats(line).back()) - offset), absl::Seconds(10));
  }
  // What depends on finding out for itself does so: Redis forgets it, and it must notice in 5 s.
  line.redis().Command({"FLUSHDB"});
  EXPECT_TRUE(Eventually([&] {
    return line.redis().Command({"SISMEMBER", "workers:ids", "w"}) == 1;
  }));
  ASSERT_NO_FATAL_FAILURE(ExpectLife(line));

  const absl::Duration begin = Now();
  line.sidecar().process().Signal(SIGTERM);
  wall.Step(-absl::Hours(2));
  const auto exit = line.sidecar().process().Wait(absl::Seconds(20));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  EXPECT_LT(Now() - begin, absl::Seconds(10));
}

}  // namespace
}  // namespace flowmesh::testing
