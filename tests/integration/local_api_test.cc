// The sidecar's local gRPC API (proto/flowmesh/v1/sidecar.proto), with and without Redis, and two
// processes that claim one worker id.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "clients/cpp/sidecar_client.h"
#include "common/strings.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using client::SidecarClient;
using ::testing::HasSubstr;

const Json kEcho = {{"spec", {{"taskType", "echo"}, {"data", {{"items", {"are you there"}}}}}}};

TEST(LocalApiTest, ASubmittedTaskIsWatchedToItsEndAndTold) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto accepted = sidecar.Submit(kEcho, "local-1");
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_EQ(accepted->worker_id(), "w");
  std::vector<uint64_t> sequences;
  const auto record = sidecar.Watch("local-1", [&](const v1::TaskUpdate& update) {
    if (update.has_event()) sequences.push_back(update.event().sequence());
  });
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::SUCCEEDED);
  EXPECT_EQ(record->source(), "local");
  EXPECT_EQ(ParseJson(record->result_json()).value(), line.ResultFile("local-1"));
  EXPECT_THAT(sequences, ::testing::SizeIs(::testing::Ge(1u)));
  // As if its envelope had come over Redis.
  const auto done = line.events().WaitForTerminal("local-1");
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");

  const auto again = sidecar.Submit(kEcho, "local-1");
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->already_known());
  const auto list = sidecar.List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->tasks_size(), 1);
  EXPECT_EQ(list->tasks(0).task_id(), "local-1");
  EXPECT_EQ(sidecar.Get("local-1")->result_json(), record->result_json());
}

TEST(LocalApiTest, MistakesHaveTheCodesOfTheContract) {
  Line line({.executors = {"a", "b"}});
  SidecarClient sidecar(line.sidecar_target());
  const auto no_map = sidecar.Submit(Json::array());
  EXPECT_TRUE(absl::IsInvalidArgument(no_map.status())) << no_map.status();
  const auto no_spec = sidecar.Submit(Json::object());
  EXPECT_TRUE(absl::IsInvalidArgument(no_spec.status()));
  EXPECT_THAT(std::string(no_spec.status().message()), HasSubstr("spec: required"));
  EXPECT_TRUE(absl::IsInvalidArgument(sidecar.Submit(kEcho, "../x").status()));
  const auto nobody = sidecar.Submit(kEcho, "", "c");
  EXPECT_TRUE(absl::IsInvalidArgument(nobody.status()));
  EXPECT_THAT(std::string(nobody.status().message()), HasSubstr("a, b"));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Get("unknown").status()));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Watch("unknown").status()));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Cancel("unknown").status()));
  const auto chosen = sidecar.Submit(kEcho, "", "b");
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ(chosen->worker_id(), "w.b");
}

TEST(LocalApiTest, DescribesItsWorkers) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto answer = sidecar.Worker();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->redis(), "connected");
  ASSERT_EQ(answer->workers_size(), 1);
  const v1::Worker& worker = answer->workers(0);
  EXPECT_EQ(worker.worker_id(), "w");
  EXPECT_EQ(worker.status(), "IDLE");
  EXPECT_TRUE(worker.executor_connected());
  EXPECT_THAT(worker.executor().runnable_task_types(), ::testing::Contains("echo"));
  EXPECT_EQ(ParseJson(worker.hardware_json()).value(),
            ParseJson(line.redis().HashField("worker:w", "hardware_json")).value());
}

TEST(LocalApiTest, DrainEndsTheProcessAsSigtermDoes) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto drained = sidecar.Drain();
  ASSERT_TRUE(drained.ok()) << drained.status();
  const auto exit = line.sidecar().process().Wait(absl::Seconds(15));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 0);
}

TEST(LocalApiTest, WorksWithoutRedis) {
  TempDir dir;
  const std::string executor = absl::StrCat("unix:", (dir / "e.sock").string());
  const std::string target = absl::StrCat("unix:", (dir / "s.sock").string());
  Program executor_program("flowmesh-executor",
                           {{"EXECUTOR_LISTEN", executor}, {"EXECUTOR_DEVICES", "cpu"}},
                           dir.path());
  Program program("flowmesh-sidecar",
                  {{"REDIS_URL", "none"},
                   {"EXECUTOR_ENDPOINTS", executor},
                   {"SIDECAR_LISTEN", target},
                   {"METRICS_LISTEN", "off"},
                   {"RESULTS_DIR", dir / "results"},
                   {"STATE_DIR", dir / "state"}},
                  dir.path());
  SidecarClient sidecar(target);
  ASSERT_TRUE(Eventually([&] {
    const auto answer = sidecar.Worker();
    return answer.ok() && answer->workers(0).status() == "IDLE";
  }));
  EXPECT_EQ(sidecar.Worker()->redis(), "none");
  const auto accepted = sidecar.Submit(kEcho);
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  const auto record = sidecar.Watch(accepted->task_id());
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::SUCCEEDED);
  program.process().Signal(SIGTERM);
  const auto exit = program.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
}

TEST(LocalApiTest, AnOlderProcessWithTheSameIdStepsBack) {
  Line line;
  TempDir dir;
  Program newer("flowmesh-sidecar",
                {{"REDIS_URL", line.redis_url()},
                 {"WORKER_ID", "w"},
                 {"EXECUTOR_ENDPOINTS", absl::StrCat("unix:", (line.dir() / "e0.sock").string())},
                 {"SIDECAR_LISTEN", absl::StrCat("unix:", (dir / "s.sock").string())},
                 {"METRICS_LISTEN", "off"},
                 {"RESULTS_DIR", dir / "results"},
                 {"STATE_DIR", dir / "state"}},
                dir.path());
  const auto exit = line.sidecar().process().Wait(absl::Seconds(20));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 3);
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("another process has taken the worker id w"));
  // The keys are the newer one's, and it works.
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  const std::string id = line.Dispatch(kEcho["spec"]);
  EXPECT_EQ((*line.events().WaitForTerminal(id))["type"], "TASK_SUCCEEDED");
}

TEST(LocalApiTest, TheSameStateFolderIsRefusedAtStart) {
  Line line;
  Program second("flowmesh-sidecar",
                 {{"REDIS_URL", line.redis_url()},
                  {"WORKER_ID", "w"},
                  {"SIDECAR_LISTEN", absl::StrCat("unix:", (line.dir() / "2.sock").string())},
                  {"METRICS_LISTEN", "off"},
                  {"RESULTS_DIR", (line.dir() / "results").string()},
                  {"STATE_DIR", (line.dir() / "state").string()}},
                 line.dir());
  const auto exit = second.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 1);
  EXPECT_THAT(second.Output(), HasSubstr("STATE_DIR"));
}

}  // namespace
}  // namespace flowmesh::testing
