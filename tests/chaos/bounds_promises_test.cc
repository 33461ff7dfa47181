// What the worker promises about its bounds, about input that is none, and about its end
// (PROMISES.md P14 to P16), on the whole line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <iostream>
#include <random>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "tests/integration/eventually.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

bool IsEnd(const Json& event) {
  return event["type"] == "TASK_SUCCEEDED" || event["type"] == "TASK_FAILED";
}

void ExpectFreshTaskSucceeds(Line& line) {
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w")) << line.sidecar().Output();
  const auto end = line.events().WaitForTerminal(line.Dispatch(kEcho));
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
}

TEST(Promises, P14_ASigtermAtAnyInstantLosesAndRepeatsNothing) {
  constexpr int kTasks = 30;
  Line line({.sidecar_env = {{"TERMINAL_EVENT_FLOOR_MS", "0"}}});
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int round = 0; round < 5; ++round) {
    std::vector<Json> envelopes;
    for (int i = 0; i < kTasks; ++i) {
      envelopes.push_back(Line::Envelope(absl::StrCat(round, "-", i), kEcho, "w"));
    }
    line.redis().PublishAll("tasks", envelopes);
    absl::SleepFor(absl::Microseconds(std::uniform_int_distribution(0, 40'000)(random)));
    const absl::Duration begin = Clock::Real().Monotonic();
    line.sidecar().process().Signal(SIGTERM);
    const auto status = line.sidecar().process().Wait(absl::Seconds(30));
    ASSERT_TRUE(status) << line.sidecar().Output();
    EXPECT_TRUE(status->ok()) << status->ToString();
    EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(20));
    ASSERT_TRUE(line.events().WaitFor([&](const Json& e) { return e["type"] == "UNREGISTER"; }));
    EXPECT_EQ(line.redis().Command({"EXISTS", "worker:w"}), 0);
    const size_t ends = line.events().All(IsEnd).size();
    line.StartSidecar();
    ASSERT_TRUE(line.WaitForStatus("IDLE", "w")) << line.sidecar().Output();
    // What was not told of went back with UNREGISTER: it is not run a second time here.
    EXPECT_EQ(line.events().All(IsEnd).size(), ends);
  }
  // Each task that began has an end, one, and a good one: an echo is done within the budget.
  std::map<std::string, int> begun, ended;
  for (const Json& event : line.events().All()) {
    if (event["type"] == "TASK_STARTED") ++begun[event["task_id"]];
    if (event["type"] == "TASK_FAILED") ADD_FAILURE() << event;
    if (event["type"] == "TASK_SUCCEEDED") ++ended[event["task_id"]];
  }
  EXPECT_EQ(begun, ended);
  for (const auto& [id, count] : ended) EXPECT_EQ(count, 1) << id;
  ExpectFreshTaskSucceeds(line);
}

TEST(Promises, P14_ASecondSigtermForces) {
  Line line({.sidecar_env = {{"DRAIN_TIMEOUT_SEC", "600"}}});
  line.executor("e0").Freeze();
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForStarted(id));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.sidecar().WaitForOutput("draining"));
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w"));
  line.sidecar().process().Signal(SIGTERM);
  // Nothing is waited for, an executor that does not answer least of all.
  const auto status = line.sidecar().process().Wait(absl::Seconds(8));
  ASSERT_TRUE(status) << line.sidecar().Output();
  EXPECT_TRUE(status->ok()) << status->ToString();
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("is given back"));
  EXPECT_EQ(line.redis().Command({"EXISTS", "worker:w"}), 0);
  line.executor("e0").process().Signal(SIGCONT);
  line.StartSidecar();
  ExpectFreshTaskSucceeds(line);
}

TEST(Promises, P14_TheEndIsBoundedHoweverManyExecutorsHang) {
  const std::vector<std::string> executors = {"e0", "e1", "e2"};
  Line line({.executors = executors, .sidecar_env = {{"DRAIN_TIMEOUT_SEC", "0"}}});
  for (const std::string& name : executors) {
    line.executor(name).Freeze();
    const std::string id = line.Dispatch(kEcho, Json::object(), line.worker_id(name));
    ASSERT_TRUE(line.events().WaitForStarted(id));
  }
  line.sidecar().process().Signal(SIGTERM);
  // One of them alone may take 15 s.
  const auto status = line.sidecar().process().Wait(absl::Seconds(28));
  ASSERT_TRUE(status) << line.sidecar().Output();
  EXPECT_TRUE(status->ok()) << status->ToString();
  for (const std::string& name : executors) {
    line.executor(name).process().Signal(SIGCONT);
    EXPECT_EQ(line.redis().Command({"EXISTS", "worker:" + line.worker_id(name)}), 0);
  }
}

TEST(Promises, P15_OverloadIsAnsweredAtOnceAndWhatWasTakenIsDone) {
  constexpr int kBound = 10'000, kTooMany = 100;
  Line line({.sidecar_env = {{"TERMINAL_EVENT_FLOOR_MS", "0"}, {"LOG_LEVEL", "ERROR"}}});
  line.executor("e0").Freeze();
  std::vector<Json> envelopes;
  // One more than the bound is with the executor.
  for (int i = 0; i < kBound + 1 + kTooMany; ++i) {
    envelopes.push_back(Line::Envelope(absl::StrCat("t", i), {{"taskType", "echo"}}, "w"));
  }
  line.redis().PublishAll("tasks", envelopes);
  const auto refused = line.events().WaitForTerminal(envelopes.back()["task_id"]);
  ASSERT_TRUE(refused);
  EXPECT_THAT((*refused)["error"].get<std::string>(), HasSubstr("the queue of worker w is full"));
  EXPECT_LE(line.sidecar().ResidentMegabytes(), 150);
  const auto failures = [&] {
    return line.events().All([](const Json& e) { return e["type"] == "TASK_FAILED"; });
  };
  ASSERT_TRUE(Eventually([&] { return failures().size() >= kTooMany; }));
  EXPECT_NEAR(failures().size(), kTooMany, 1);  // the first may not have left the queue yet
  // The line stands; it need not be run through to its end here.
  line.sidecar().process().Signal(SIGKILL);
  ASSERT_TRUE(line.sidecar().process().Wait(absl::Seconds(10)));
}

TEST(Promises, P15_AMessageBeyondTheLimitIsRefusedAndItsMemoryGivenBack) {
  Line line({.sidecar_env = {{"MAX_MESSAGE_BYTES", "1048576"}}});
  Json large = Line::Envelope("large", kEcho, "w");
  // Beyond 32 MB Redis would drop the subscriber.
  large["task"]["spec"]["data"]["items"] = {std::string(20 << 20, 'x')};
  line.redis().Publish("tasks", large);
  const auto end = line.events().WaitForTerminal("large");
  ASSERT_TRUE(end) << line.sidecar().Output();
  EXPECT_EQ((*end)["type"], "TASK_FAILED");
  EXPECT_THAT((*end)["error"].get<std::string>(), HasSubstr("MAX_MESSAGE_BYTES is 1048576"));
  ExpectFreshTaskSucceeds(line);
  EXPECT_LE(line.sidecar().ResidentMegabytes(), 100);
}

TEST(Promises, P16_NoInputEndsTheSidecar) {
  Line line;
  std::mt19937 random(7);
  const std::string good = DumpJson(Line::Envelope("good", kEcho, "w"));
  const auto any = [&](size_t below) {
    return std::uniform_int_distribution<size_t>(0, below - 1)(random);
  };
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    // No task of its own, whatever becomes of the rest.
    for (size_t hits = 1 + any(4); hits > 0; --hits) {
      const size_t at = any(text.size());
      switch (any(4)) {
        case 0:
          text[at] = static_cast<char>(any(256));
          break;
        case 1:
          text.erase(at, 1 + any(20));
          break;
        case 2:
          text.insert(at, text.substr(any(text.size()), any(40)));
          break;
        case 3:
          text.insert(at, std::string(1 + any(300), "[{\"\\"[any(4)]));
          break;
      }
      if (text.empty()) text = "{";
    }
    line.redis().Command({"PUBLISH", "tasks", text});
  }
  EXPECT_FALSE(line.sidecar().process().Poll());
  ExpectFreshTaskSucceeds(line);
}

}  // namespace
}  // namespace flowmesh::testing
