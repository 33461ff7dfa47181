// P8 of PROMISES.md where the disk does not answer: heartbeats need none.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "tests/chaos/beats.h"

namespace flowmesh::testing {
namespace {

const Json kEcho = {{"taskType", "echo"}};

TEST(Promises, P8_BeatsWhileTheDiskIsBlocked) {
  constexpr int kTasks = 20;
  TempDir orders;
  const std::string blocked = orders / "blocked";
  Line line({.sidecar_env = {{"LD_PRELOAD", std::getenv("BLOCKED_DISK_LIBRARY")},
                             {"BLOCKED_DISK", blocked},
                             {"HEARTBEAT_INTERVAL_SEC", "2"}}});
  ASSERT_TRUE(line.events().WaitForTerminal(line.Dispatch(kEcho)));
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));

  ASSERT_TRUE(WriteFileAtomically(blocked, "").ok());
  std::vector<std::string> ids;
  for (int i = 0; i < kTasks; ++i) ids.push_back(line.Dispatch(kEcho));
  ExpectSteady(Beats(line, 4), absl::Seconds(2));
  // Only the one before them has begun: none of them is on disk.
  EXPECT_EQ(line.events().All([](const Json& e) { return e["type"] == "TASK_STARTED"; }).size(),
            1u);

  std::filesystem::remove(blocked);
  for (const std::string& id : ids) {
    const auto end = line.events().WaitForTerminal(id);
    ASSERT_TRUE(end) << id;
    EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED") << DumpJson(*end);
  }
}

}  // namespace
}  // namespace flowmesh::testing
