#include "clients/orchestrator/events.h"

#include <gtest/gtest.h>

#include "clients/orchestrator/merge.h"
#include "clients/orchestrator/watchdog.h"

namespace flowmesh::orchestrator {
namespace {

TEST(EventsTest, ReadsTaskAndWorkerEvents) {
  const auto failed = ParseEvent(
      R"({"type":"task_failed","ts":"t","worker_id":"w","task_id":"T","status":null,"error":"bad",
          "payload":{"taskType":"echo"},"extra":1})");
  ASSERT_TRUE(failed);
  EXPECT_TRUE(failed->is_task);
  EXPECT_EQ(failed->type, "TASK_FAILED");
  EXPECT_EQ(failed->error, "bad");
  EXPECT_FALSE(failed->is_short);
  const auto status = ParseEvent(R"({"type":"STATUS","worker_id":"w","status":"IDLE","ts":"t"})");
  ASSERT_TRUE(status);
  EXPECT_FALSE(status->is_task);
  EXPECT_TRUE(status->is_short);
  EXPECT_EQ(status->status, "IDLE");
}

TEST(EventsTest, DropsWhatBreaksTheContract) {
  for (const char* bad :
       {"", "nonsense", "[]", "{}", R"({"type":7,"worker_id":"w"})", R"({"type":"STATUS"})",
        R"({"type":"TASK_STARTED","worker_id":"w"})",
        R"({"type":"TASK_STARTED","worker_id":"w","task_id":7})",
        R"({"type":"TASK_STARTED","worker_id":"w","task_id":""})",
        R"({"type":"STATUS","worker_id":"w","payload":null})",
        R"({"type":"STATUS","worker_id":"w","metrics":[]})",
        R"({"type":"STATUS","worker_id":"w","ts":1})",
        R"({"type":"STATUS","worker_id":"w","tags":[1]})",
        R"({"type":"STATUS","worker_id":"w","tags":"a"})",
        R"({"type":"TASK_FAILED","worker_id":"w","task_id":"t","error":{"a":1}})",
        R"({"type":"TASK_FAILED","worker_id":"w","task_id":"t","payload":{"taskType":3}})"}) {
    EXPECT_FALSE(ParseEvent(bad)) << bad;
  }
}

TEST(MergeTest, KeysIgnoreDataSystemPromptAndOrder) {
  const auto key = [](const char* text) { return MergeKey(ParseJson(text).value()); };
  const std::string base = key(
      R"({"spec":{"taskType":"inference","data":{"items":[1]},"inference":{"max_tokens":3,"system_prompt":"a"}}})");
  EXPECT_FALSE(base.empty());
  EXPECT_EQ(base,
            key(R"({"spec":{"inference":{"systemPrompt":"b","max_tokens":3},"_upstreamResults":{},
                          "taskType":"inference"}})"));
  EXPECT_NE(base, key(R"({"spec":{"taskType":"inference","inference":{"max_tokens":4}}})"));
  EXPECT_EQ(key(R"({"spec":{"taskType":"echo"}})"), "");
  EXPECT_EQ(key(R"({"spec":{"taskType":3}})"), "");
  EXPECT_EQ(key("{}"), "");
  EXPECT_NE(key(R"({"spec":{"taskType":"rag"}})"), "");
}

TEST(WatchdogTest, DeclaresDeadOnceAfterTheGraceTime) {
  Watchdog watchdog(absl::Seconds(60));
  const std::map<std::string, bool> stale = {{"w", true}, {"v", false}};
  EXPECT_TRUE(watchdog.Check(stale, absl::Seconds(0)).empty());
  EXPECT_TRUE(watchdog.Check(stale, absl::Seconds(59)).empty());
  EXPECT_EQ(watchdog.Check(stale, absl::Seconds(60)), std::vector<std::string>{"w"});
  EXPECT_TRUE(watchdog.IsDead("w"));
  EXPECT_FALSE(watchdog.IsDead("v"));
  EXPECT_TRUE(watchdog.Check(stale, absl::Seconds(90)).empty());
}

TEST(WatchdogTest, AnySignOfLifeStartsOver) {
  Watchdog watchdog(absl::Seconds(60));
  watchdog.Check({{"w", true}}, absl::Seconds(0));
  watchdog.Check({{"w", false}}, absl::Seconds(30));
  EXPECT_TRUE(watchdog.Check({{"w", true}}, absl::Seconds(61)).empty());
  EXPECT_EQ(watchdog.Check({{"w", true}}, absl::Seconds(121)).size(), 1u);
  watchdog.SawAlive("w");
  EXPECT_FALSE(watchdog.IsDead("w"));
}

}  // namespace
}  // namespace flowmesh::orchestrator
