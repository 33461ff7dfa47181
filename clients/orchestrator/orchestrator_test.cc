// The orchestrator against a real redis-server and workers that do what each test says.
#include "clients/orchestrator/orchestrator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/orchestrator/scripted_worker.h"

namespace flowmesh::orchestrator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kEcho[] = "spec: {taskType: echo}";
constexpr char kHttp[] =
    "spec: {taskType: inference, model: m, data: [PROMPT], output: {destination: {type: http}}}";

class OrchestratorTest : public ::testing::Test {
 protected:
  RedisServer redis_;
};

TEST_F(OrchestratorTest, DispatchesAndFollowsATask) {
  TestOrchestrator orchestrator(redis_);
  ScriptedWorker worker(redis_, "w");
  const std::string id =
      orchestrator.Submit("kind: Echo\nspec: {taskType: echo, when: 2025-11-03, x: '${left}'}")
          .at(0);
  worker.Register();
  const Json envelope = worker.TakeEnvelope();
  EXPECT_EQ(envelope["task_id"], id);
  EXPECT_EQ(envelope["task"]["kind"], "Echo");
  EXPECT_EQ(envelope["task"]["spec"]["when"], "2025-11-03");
  EXPECT_EQ(envelope["task"]["spec"]["x"], "${left}");  // a lone task's placeholders stay
  EXPECT_EQ(envelope["task_type"], "echo");
  EXPECT_EQ(envelope["assigned_worker"], "w");
  EXPECT_EQ(envelope["parent_task_id"], nullptr);
  EXPECT_FALSE(envelope.contains("merged_children"));
  EXPECT_NE(ParseTimestamp(envelope["dispatched_at"].get<std::string>()), absl::InfinitePast());
  EXPECT_EQ(orchestrator.Record(id)["status"], "DISPATCHED");  // marked before PUBLISH
  EXPECT_TRUE(Eventually([&] { return worker.StatusInRedis() == "RUNNING"; }));

  worker.Started(id);
  EXPECT_TRUE(Eventually([&] { return !orchestrator.Record(id)["started_ts"].is_null(); }));
  worker.TaskEvent("TASK_SUCCEEDED", id, nullptr);
  EXPECT_TRUE(orchestrator.WaitForStatus(id, "DONE"));
  EXPECT_TRUE(Eventually([&] { return worker.StatusInRedis() == "IDLE"; }));
}

TEST_F(OrchestratorTest, OneTaskPerIdleWorkerInOrder) {
  TestOrchestrator orchestrator(redis_);
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(orchestrator.Submit(kEcho).at(0));
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  for (const std::string& id : ids) {
    EXPECT_EQ(worker.TakeEnvelope()["task_id"], id);
    EXPECT_FALSE(worker.HasEnvelope());
    worker.Succeed(id);
  }
}

TEST_F(OrchestratorTest, ATaskThatFitsNowhereDelaysNoOther) {
  TestOrchestrator orchestrator(redis_);
  const std::string large =
      orchestrator.Submit("spec: {taskType: echo, resources: {hardware: {gpu: {count: 8}}}}").at(0);
  const std::string small = orchestrator.Submit(kEcho).at(0);
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], small);
  EXPECT_EQ(orchestrator.Record(large)["status"], "PENDING");
  EXPECT_EQ(orchestrator.Record(large)["waiting_for"],
            "an idle worker that fits; w has no gpu.count: 8");
  EXPECT_EQ(orchestrator.Record(large)["attempts"], 0);
}

TEST_F(OrchestratorTest, GraphsPassResultsOn) {
  TestOrchestrator orchestrator(redis_);
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  const auto ids = orchestrator.Submit(R"(
metadata: {name: flow}
spec:
  taskType: echo
  graph:
    nodes:
      - {name: last, dependsOn: [first], spec: {n: "${first.result.n}", text: "<${first.result.n}> ${first.task_id}"}}
      - {name: first, spec: {n: 1}}
)");
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], ids[0]);
  worker.Succeed(ids[0]);
  ASSERT_TRUE(orchestrator.WaitForStatus(ids[0], "DONE"));
  // Its result is not here yet: the dependent waits, and that is no attempt.
  ASSERT_TRUE(Eventually([&] { return !orchestrator.Record(ids[1])["waiting_for"].is_null(); }));
  EXPECT_THAT(orchestrator.Record(ids[1])["waiting_for"].get<std::string>(), HasSubstr("first"));
  orchestrator.PostResult(ids[0], {{"n", 1.0}});
  const Json task = worker.TakeEnvelope()["task"];
  EXPECT_EQ(task["metadata"]["name"], "flow:last");
  EXPECT_TRUE(task["spec"]["n"].is_number_float());
  EXPECT_EQ(task["spec"]["text"], "<1.0> " + ids[0]);
  EXPECT_EQ(task["spec"]["_upstreamResults"]["first"]["result"]["n"], 1.0);
  EXPECT_EQ(task["spec"]["_upstreamResults"]["first"]["worker_id"], "w");
  EXPECT_EQ(orchestrator.Record(ids[1])["attempts"], 0);
  EXPECT_EQ(orchestrator.Record(ids[1])["waiting_for"], nullptr);
}

TEST_F(OrchestratorTest, AHopelessReferenceFailsAtOnceWithAllBehindIt) {
  TestOrchestrator orchestrator(redis_);
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  const auto ids = orchestrator.Submit(
      "spec: {taskType: echo, stages: [{name: a}, {name: b, spec: {x: '${a.result.nothing}'}}, "
      "{name: c}]}");
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], ids[0]);
  orchestrator.PostResult(ids[0], {{"ok", true}});
  worker.Succeed(ids[0]);
  ASSERT_TRUE(orchestrator.WaitForStatus(ids[1], "FAILED"));
  EXPECT_EQ(orchestrator.Record(ids[1])["error"], "${a.result.nothing}: no key \"nothing\"");
  EXPECT_EQ(orchestrator.Record(ids[1])["attempts"], 0);
  EXPECT_EQ(orchestrator.Record(ids[2])["status"], "FAILED");
}

TEST_F(OrchestratorTest, TheQueueIsLookedAtAlsoWithoutAWorker) {
  TestOrchestrator orchestrator(redis_);
  const std::string waits = orchestrator.Submit(kEcho).at(0);
  const auto ids = orchestrator.Submit(
      "spec: {taskType: echo, stages: [{name: a, spec: {x: '${ghost.result}'}}, {name: b}]}");
  ASSERT_TRUE(orchestrator.WaitForStatus(ids[0], "FAILED"));
  EXPECT_THAT(orchestrator.Record(ids[0])["error"].get<std::string>(), HasSubstr("ghost"));
  EXPECT_EQ(orchestrator.Record(ids[0])["attempts"], 0);
  EXPECT_EQ(orchestrator.Record(ids[1])["status"], "FAILED");
  EXPECT_EQ(orchestrator.Record(waits)["waiting_for"], "an idle worker that fits");
  EXPECT_EQ(orchestrator.Record(waits)["status"], "PENDING");
}

TEST_F(OrchestratorTest, ThreeAttemptsNeverTwiceInARowOnOneWorker) {
  TestOrchestrator orchestrator(redis_);
  ScriptedWorker a(redis_, "a");
  ScriptedWorker b(redis_, "b");
  a.Register();
  const std::string id = orchestrator.Submit(kEcho).at(0);
  EXPECT_EQ(a.TakeEnvelope()["task_id"], id);
  b.Fail(id, "not mine");  // a failure from a worker that does not hold the task changes nothing
  a.Fail(id, "broken");
  ASSERT_TRUE(Eventually([&] {
    const Json record = orchestrator.Record(id);
    return record["attempts"] == 1 && !record["waiting_for"].is_null();
  }));
  EXPECT_EQ(orchestrator.Record(id)["last_failed_worker"], "a");
  EXPECT_THAT(orchestrator.Record(id)["waiting_for"].get<std::string>(), HasSubstr("other than a"));
  EXPECT_FALSE(a.HasEnvelope());
  b.Register();
  EXPECT_EQ(b.TakeEnvelope()["task_id"], id);
  b.Fail(id, "broken");
  EXPECT_EQ(a.TakeEnvelope()["task_id"], id);
  a.Fail(id, "broken");
  ASSERT_TRUE(orchestrator.WaitForStatus(id, "FAILED"));
  EXPECT_EQ(orchestrator.Record(id)["error"], "max_attempts_exceeded");
  EXPECT_EQ(orchestrator.Record(id)["last_error"], "broken");
  EXPECT_EQ(orchestrator.Record(id)["attempts"], 3);
}

TEST_F(OrchestratorTest, NobodyListeningCostsAttempts) {
  TestOrchestrator orchestrator(redis_);
  {
    ScriptedWorker gone(redis_, "w");
    gone.Register();
  }
  const std::string id = orchestrator.Submit(kEcho).at(0);
  ASSERT_TRUE(orchestrator.WaitForStatus(id, "FAILED"));
  EXPECT_EQ(orchestrator.Record(id)["attempts"], 3);
  EXPECT_EQ(orchestrator.Record(id)["last_failed_worker"], nullptr);
}

TEST_F(OrchestratorTest, UnregisterGivesTasksToOthers) {
  TestOrchestrator orchestrator(redis_);
  ScriptedWorker a(redis_, "a");
  ScriptedWorker b(redis_, "b");
  a.Register();
  const std::string id = orchestrator.Submit(kEcho).at(0);
  EXPECT_EQ(a.TakeEnvelope()["task_id"], id);
  a.Unregister();
  ASSERT_TRUE(orchestrator.WaitForStatus(id, "PENDING"));
  EXPECT_EQ(orchestrator.Record(id)["attempts"], 1);
  b.Register();
  EXPECT_EQ(b.TakeEnvelope()["task_id"], id);
}

TEST_F(OrchestratorTest, TheWatchdogTakesTasksFromTheDead) {
  FakeClock clock;
  TestOrchestrator orchestrator(redis_, nullptr, clock);
  ScriptedWorker a(redis_, "a");
  ScriptedWorker b(redis_, "b");
  a.Register();
  const std::string id = orchestrator.Submit(kEcho).at(0);
  EXPECT_EQ(a.TakeEnvelope()["task_id"], id);
  a.DropHeartbeat();
  int beats = 0;
  ASSERT_TRUE(Eventually([&] {
    if (orchestrator.Record(id)["attempts"] == 1) return true;
    clock.Advance(absl::Seconds(1));
    ++beats;
    return false;
  }));
  EXPECT_GE(beats, 60);  // not before the grace time
  EXPECT_EQ(orchestrator.Record(id)["last_failed_worker"], "a");
  b.Register();
  EXPECT_EQ(b.TakeEnvelope()["task_id"], id);
  // The dead worker's late UNREGISTER takes nothing back a second time.
  a.Unregister();
  b.Succeed(id);
  EXPECT_TRUE(orchestrator.WaitForStatus(id, "DONE"));
  EXPECT_EQ(orchestrator.Record(id)["attempts"], 1);
}

std::string Prompt(const std::string& prompt) {
  std::string yaml = kHttp;
  return yaml.replace(yaml.find("PROMPT"), 6, prompt);
}

TEST_F(OrchestratorTest, EqualTasksTravelTogether) {
  TestOrchestrator orchestrator(redis_);
  std::vector<std::string> ids;
  for (const char* prompt : {"p", "c1"}) ids.push_back(orchestrator.Submit(Prompt(prompt)).at(0));
  const std::string echo = orchestrator.Submit(kEcho).at(0);
  for (const char* prompt : {"c2", "c3", "alone"}) {
    ids.push_back(orchestrator.Submit(Prompt(prompt)).at(0));
  }
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  const Json envelope = worker.TakeEnvelope();
  EXPECT_EQ(envelope["task_id"], ids[0]);
  std::vector<std::string> children;
  for (const Json& child : envelope["merged_children"]) children.push_back(child["task_id"]);
  EXPECT_THAT(children, ElementsAre(ids[1], ids[2], ids[3]));  // four tasks at most
  EXPECT_EQ(envelope["merged_children"][0]["spec"]["data"][0], "c1");
  EXPECT_TRUE(envelope["merged_children"][0]["metadata"].is_object());
  EXPECT_EQ(orchestrator.Record(ids[1])["status"], "DISPATCHED");
  EXPECT_EQ(orchestrator.Record(ids[1])["merged_parent_id"], ids[0]);
  // One child's result is missing: that one fails, the others are done.
  for (const size_t delivered : {0, 1, 3}) orchestrator.PostResult(ids[delivered], {{"ok", true}});
  worker.Succeed(ids[0]);
  EXPECT_TRUE(orchestrator.WaitForStatus(ids[1], "DONE"));
  EXPECT_TRUE(orchestrator.WaitForStatus(ids[3], "DONE"));
  EXPECT_TRUE(orchestrator.WaitForStatus(ids[2], "FAILED"));
  EXPECT_THAT(orchestrator.Record(ids[2])["error"].get<std::string>(),
              HasSubstr("without a result"));
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], echo);
}

TEST_F(OrchestratorTest, AFailedMergeIsReleasedAndMergingCanBeOff) {
  {
    TestOrchestrator orchestrator(redis_);
    const std::string p = orchestrator.Submit(Prompt("p")).at(0);
    const std::string c = orchestrator.Submit(Prompt("c")).at(0);
    ScriptedWorker a(redis_, "a");
    a.Register();
    EXPECT_EQ(a.TakeEnvelope()["merged_children"].size(), 1u);
    a.Fail(p, "broken");
    // The child comes first and takes the parent along, also to the worker that failed it.
    const Json again = a.TakeEnvelope();
    EXPECT_EQ(again["task_id"], c);
    EXPECT_EQ(again["merged_children"][0]["task_id"], p);
    a.Unregister();
  }
  TestOrchestrator orchestrator(redis_, [](Config& config) { config.merge = false; });
  const std::string p = orchestrator.Submit(Prompt("p")).at(0);
  orchestrator.Submit(Prompt("c"));
  ScriptedWorker b(redis_, "b");
  b.Register();
  EXPECT_FALSE(b.TakeEnvelope().contains("merged_children"));
}

TEST_F(OrchestratorTest, WorkersCanBeSwitchedOffAndOn) {
  ScriptedWorker worker(redis_, "w");
  {
    TestOrchestrator orchestrator(redis_);
    worker.Register();
    const Json off = orchestrator.core().SetElastic("w", false).value();
    EXPECT_EQ(off["elastic_disabled"], Json({"w"}));
    EXPECT_EQ(orchestrator.core().WorkerById("w").value()["elastic_disabled"], true);
  }
  TestOrchestrator orchestrator(redis_);  // reads the set at its start
  const std::string id = orchestrator.Submit(kEcho).at(0);
  const std::string other = orchestrator.Submit("spec: {}").at(0);
  ScriptedWorker second(redis_, "v");
  second.Register();
  EXPECT_EQ(second.TakeEnvelope()["task_id"], id);
  EXPECT_FALSE(worker.HasEnvelope());
  EXPECT_EQ(orchestrator.core().SetElastic("w", true).value()["elastic_disabled"], Json::array());
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], other);
}

TEST_F(OrchestratorTest, GarbageOnTheChannelsIsCounted) {
  TestOrchestrator orchestrator(redis_);
  testing::RedisPeer raw(redis_.port());
  for (const char* garbage :
       {"", "[]", "\xff", "{\"type\":\"TASK_FAILED\",\"worker_id\":\"w\",\"task_id\":3}"}) {
    ASSERT_EQ(raw.Command({"PUBLISH", "tasks.events", garbage}), 1);
  }
  raw.Command({"SADD", "workers:ids", "bad", "ghost"});
  raw.Command({"HSET", "worker:bad", "status", "IDLE", "hardware_json", "[3", "tags_json", "7"});
  EXPECT_TRUE(Eventually(
      [&] { return orchestrator.core().Metrics()["counters"]["malformed_events"] == 4; }));
  EXPECT_EQ(orchestrator.core().WorkerList().value().size(), 1u);
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  const std::string id = orchestrator.Submit(kEcho).at(0);
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], id);
}

TEST_F(OrchestratorTest, SaysAtOnceWhyRedisRefusesIt) {
  testing::RedisPeer raw(redis_.port());
  raw.Command({"ACL", "SETUSER", "ann", "on", ">right", "+@all"});
  TempDir dir;
  Config config;
  config.results_dir = dir.path();
  config.redis = redis::ParseRedisUrl(redis_.url()).value();
  config.redis.user = "ann";
  config.redis.password = "canary";
  Orchestrator orchestrator(std::move(config), Clock::Real());
  const absl::Status refused = orchestrator.Start();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused), HasSubstr("WRONGPASS"));
  EXPECT_THAT(Message(refused), HasSubstr(redis::ParseRedisUrl(redis_.url())->ToString()));
  EXPECT_THAT(Message(refused), ::testing::Not(HasSubstr("canary")));
}

TEST_F(OrchestratorTest, OutlivesARestartOfRedis) {
  TestOrchestrator orchestrator(redis_);
  redis_.Kill();
  redis_.Start();
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  testing::RedisPeer raw(redis_.port());
  ASSERT_TRUE(Eventually([&] {
    return raw.Command({"PUBSUB", "NUMSUB", "tasks.events"})[1] == 1;
  }));
  const std::string id = orchestrator.Submit(kEcho).at(0);
  EXPECT_EQ(worker.TakeEnvelope()["task_id"], id);
  worker.Succeed(id);
  EXPECT_TRUE(orchestrator.WaitForStatus(id, "DONE"));
}

TEST_F(OrchestratorTest, TheReferencesLateOrderSticks) {
  TestOrchestrator orchestrator(
      redis_, [](Config& config) { config.late_order_delay = absl::Milliseconds(300); });
  ScriptedWorker worker(redis_, "w");
  worker.Register();
  const std::string id = orchestrator.Submit(kEcho).at(0);
  // A worker that is done before it is marked.
  ASSERT_TRUE(Eventually([&] { return worker.HasEnvelope(); }));
  worker.Succeed(id);
  EXPECT_TRUE(orchestrator.WaitForStatus(id, "DONE"));
  EXPECT_TRUE(orchestrator.WaitForStatus(id, "DISPATCHED"));
  EXPECT_TRUE(Eventually([&] { return worker.StatusInRedis() == "RUNNING"; }));
}

TEST_F(OrchestratorTest, WipesRedisAtTheEndOnlyWhenAsked) {
  testing::RedisPeer raw(redis_.port());
  for (const bool wipe : {false, true}) {
    raw.Command({"SET", "canary", "alive"});
    {
      TestOrchestrator orchestrator(redis_, [&](Config& config) { config.flushdb_on_exit = wipe; });
    }
    EXPECT_EQ(raw.Command({"EXISTS", "canary"}), wipe ? 0 : 1);
  }
}

}  // namespace
}  // namespace flowmesh::orchestrator
