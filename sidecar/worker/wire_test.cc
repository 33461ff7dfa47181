// The documents of PROTOCOL.md 2, 3 and 5, value for value.
#include "sidecar/worker/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/clock.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::ElementsAre;

const absl::Time kNow = absl::FromUnixMicros(1762160400123456);  // 2025-11-03T09:00:00.123456
constexpr char kNowText[] = "2025-11-03T09:00:00.123456+00:00";
constexpr char kId[] = "9f3c2a7be01d4c55";

Registration Sample() {
  return {.worker_id = kId,
          .instance_id = "0123456789abcdef0123456789abcdef",
          .started_at = kNow,
          .pid = 17,
          .tags = {"gpu", "lab"},
          .cost_per_hour = 1.0,
          .hardware = {{"cpu", {{"logical_cores", 16}}}}};
}

Json EventOf(const redis::Command& publish) { return ParseJson(publish.at(2)).value(); }

TEST(WireTest, TrueStatusFollowsFromTheCondition) {
  const WorkerCondition ready{.subscribed = true, .can_work = true};
  EXPECT_EQ(TrueStatus(ready), WorkerStatus::kIdle);
  WorkerCondition condition = ready;
  condition.has_work = true;
  EXPECT_EQ(TrueStatus(condition), WorkerStatus::kRunning);
  condition.can_work = false;
  EXPECT_EQ(TrueStatus(condition), WorkerStatus::kStarting);
  condition = ready;
  condition.subscribed = false;
  EXPECT_EQ(TrueStatus(condition), WorkerStatus::kStarting);
  condition.draining = true;
  EXPECT_EQ(TrueStatus(condition), WorkerStatus::kStopping);
}

TEST(WireTest, RegisterWritesEveryFieldOfTheHashInOneTransaction) {
  const Json power = {{"cpu_watts", nullptr}};
  const auto commands = RegisterCommands(Sample(), WorkerStatus::kStarting, power, kNow);
  ASSERT_EQ(commands.size(), 4u);
  EXPECT_THAT(commands[0], ElementsAre("SADD", "workers:ids", kId));
  EXPECT_THAT(commands[1],
              ElementsAre("HSET", "worker:9f3c2a7be01d4c55", "worker_id", kId, "status", "STARTING",
                          "started_at", kNowText, "pid", "17", "env_json", "{}", "hardware_json",
                          R"({"cpu":{"logical_cores":16}})", "tags_json", R"(["gpu","lab"])",
                          "last_seen", kNowText, "cost_per_hour", "1.0", "instance_id",
                          "0123456789abcdef0123456789abcdef"));
  EXPECT_THAT(commands[2],
              ElementsAre("HDEL", "worker:9f3c2a7be01d4c55", "extra_task_id", "extra_last_task"));
  EXPECT_EQ(commands[3].at(1), "workers.events");
  EXPECT_EQ(EventOf(commands[3]), Json({{"type", "REGISTER"},
                                        {"ts", kNowText},
                                        {"worker_id", kId},
                                        {"status", "STARTING"},
                                        {"tags", {"gpu", "lab"}},
                                        {"metrics", Json::object()},
                                        {"payload",
                                         {{"env", Json::object()},
                                          {"hardware", {{"cpu", {{"logical_cores", 16}}}}},
                                          {"cost_per_hour", 1.0},
                                          {"power_metrics", power}}}}));
}

TEST(WireTest, AStatusGoesOutWithItsExtraField) {
  const auto commands =
      StatusCommands(kId, WorkerStatus::kRunning, {{"task_id", "t"}}, "extra_task_id", "t", kNow);
  EXPECT_THAT(commands[0], ElementsAre("HSET", "worker:9f3c2a7be01d4c55", "status", "RUNNING",
                                       "last_seen", kNowText, "extra_task_id", "t"));
  EXPECT_EQ(EventOf(commands[1]), Json({{"type", "STATUS"},
                                        {"ts", kNowText},
                                        {"worker_id", kId},
                                        {"status", "RUNNING"},
                                        {"tags", nullptr},
                                        {"metrics", Json::object()},
                                        {"payload", {{"task_id", "t"}}}}));
  EXPECT_EQ(StatusCommands(kId, WorkerStatus::kIdle, Json::object(), "", "", kNow)[0].size(), 6u);
}

TEST(WireTest, AHeartbeatLivesForFourIntervalsAndAtLeastTwoMinutes) {
  const Json metrics = {{"uptime_sec", 30.5}};
  const auto commands =
      HeartbeatCommands(kId, WorkerStatus::kIdle, absl::Seconds(60), metrics, kNow);
  EXPECT_THAT(commands[0], ElementsAre("SETEX", "worker:9f3c2a7be01d4c55:hb", "240", kNowText));
  EXPECT_THAT(commands[1], ElementsAre("HSET", "worker:9f3c2a7be01d4c55", "last_seen", kNowText,
                                       "status", "IDLE"));
  const Json event = EventOf(commands[2]);
  EXPECT_EQ(event["type"], "HEARTBEAT");
  EXPECT_EQ(event["metrics"], metrics);
  EXPECT_EQ(event["status"], nullptr);
  EXPECT_EQ(HeartbeatCommands(kId, WorkerStatus::kIdle, absl::Seconds(1), metrics, kNow)[0][2],
            "120");
}

TEST(WireTest, UnregisterRemovesEveryKeyAndTellsTheCost) {
  const auto commands = UnregisterCommands(Sample(), absl::Seconds(1800), {{"samples", 1}}, kNow);
  EXPECT_THAT(commands[0], ElementsAre("SREM", "workers:ids", kId));
  EXPECT_THAT(commands[1], ElementsAre("DEL", "worker:9f3c2a7be01d4c55"));
  EXPECT_THAT(commands[2], ElementsAre("DEL", "worker:9f3c2a7be01d4c55:hb"));
  EXPECT_EQ(EventOf(commands[3])["payload"], Json({{"cost_per_hour", 1.0},
                                                   {"uptime_sec", 1800.0},
                                                   {"accrued_cost_usd", 0.5},
                                                   {"power_summary", {{"samples", 1}}}}));
}

TEST(WireTest, TaskEventsHaveEveryFieldAndTheDefaultsOfTheProtocol) {
  const TaskTimes times{.task_type = "inference",
                        .dispatched_at = "2025-11-03T09:01:00.000001+00:00",
                        .started_at = kNow};
  EXPECT_EQ(ParseJson(TaskStartedEvent(kId, "t", times, kNow)).value(),
            Json({{"type", "TASK_STARTED"},
                  {"ts", kNowText},
                  {"worker_id", kId},
                  {"task_id", "t"},
                  {"status", nullptr},
                  {"error", nullptr},
                  {"payload",
                   {{"taskType", "inference"},
                    {"dispatched_at", "2025-11-03T09:01:00.000001+00:00"},
                    {"started_at", kNowText}}}}));
  const Json ended = ParseJson(TaskEndedEvent(kId, "t", times, "spec.data: required",
                                              Json::object(), kNow, absl::Milliseconds(3970), kNow))
                         .value();
  EXPECT_EQ(ended, Json({{"type", "TASK_FAILED"},
                         {"ts", kNowText},
                         {"worker_id", kId},
                         {"task_id", "t"},
                         {"status", nullptr},
                         {"error", "spec.data: required"},
                         {"payload",
                          {{"taskType", "inference"},
                           {"runtime_sec", 3.97},
                           {"started_at", kNowText},
                           {"finished_at", kNowText},
                           {"dispatched_at", "2025-11-03T09:01:00.000001+00:00"}}}}));
}

TEST(WireTest, WhatTheEnvelopeLackedIsLeftOut) {
  const TaskTimes times{.started_at = kNow};
  const Json started = ParseJson(TaskStartedEvent(kId, "t", times, kNow)).value();
  EXPECT_EQ(started["payload"], Json({{"started_at", kNowText}}));
  const Json ended =
      ParseJson(TaskEndedEvent(kId, "t", times, "", {{"x", 1}}, kNow, absl::ZeroDuration(), kNow))
          .value();
  EXPECT_EQ(ended["type"], "TASK_SUCCEEDED");
  EXPECT_EQ(ended["error"], nullptr);
  EXPECT_EQ(ended["payload"]["taskType"], nullptr);
  EXPECT_EQ(ended["payload"]["x"], 1);
  EXPECT_FALSE(ended["payload"].contains("dispatched_at"));
}

TEST(WireTest, ALongErrorIsCutAtACharacter) {
  std::string error(8191, 'x');
  error += "é and more";
  const Json ended = ParseJson(TaskEndedEvent(kId, "t", {}, error, Json::object(), kNow,
                                              absl::ZeroDuration(), kNow))
                         .value();
  EXPECT_EQ(ended["error"], std::string(8191, 'x'));
}

}  // namespace
}  // namespace flowmesh::sidecar
