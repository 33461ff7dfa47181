// The line with the local orchestrator in front: YAML in, stored results out (PROTOCOL.md 12).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

constexpr char kEchoOverHttp[] =
    "spec: {taskType: echo, output: {destination: {type: http, url: \"$URL\"}}}";

std::string WithUrl(const std::string& yaml, Line& line) {
  return absl::StrReplaceAll(yaml, {{"$URL", line.orchestrator_url() + "/api/v1/results"}});
}

TEST(OrchestratorLineTest, AGraphRunsInOrderAndItsReferencesResolve) {
  Line line({.orchestrator = true});
  const std::vector<std::string> ids = line.Submit(WithUrl(R"(
apiVersion: flowmesh/v1
kind: EchoTask
metadata: {name: chain}
spec:
  taskType: echo
  output: {destination: {type: http, url: "$URL"}}
  graph:
    nodes:
      - {name: last, dependsOn: [first], spec: {data: {items: ["got ${first.result.echo.data.items.0}"]}}}
      - {name: first, spec: {data: {items: ["hello"]}}}
)",
                                                           line));
  ASSERT_EQ(ids.size(), 2u);
  std::string last;
  for (const std::string& id : ids) {
    const Json record = line.WaitForRecord(id);
    EXPECT_EQ(record["status"], "DONE") << DumpJson(record);
    if (record["graph_node_name"] == "last") last = id;
  }
  const Json stored = line.Get("/api/v1/results/" + last);
  EXPECT_EQ(stored["result"]["echo"]["data"]["items"][0], "got hello");
  EXPECT_EQ(stored["worker_id"], "w");
}

TEST(OrchestratorLineTest, AFailingTaskIsTriedOnAnotherWorkerAndThenGivenUp) {
  Line line({.executors = {"a", "b"}, .orchestrator = true});
  const std::vector<std::string> ids = line.Submit("spec: {taskType: embedding}");
  ASSERT_EQ(ids.size(), 1u);
  const Json record = line.WaitForRecord(ids[0]);
  EXPECT_EQ(record["status"], "FAILED");
  EXPECT_EQ(record["error"], "max_attempts_exceeded");
  EXPECT_EQ(record["attempts"], 3);
}

TEST(OrchestratorLineTest, SigtermHandsTheWorkOverToAnotherLife) {
  Line line({.executors = {"a", "b"}, .orchestrator = true});
  line.executor("a").Freeze();
  const std::string id = line.Submit(WithUrl(kEchoOverHttp, line)).at(0);
  ASSERT_TRUE(line.events().WaitForStarted(id));
  EXPECT_EQ(line.Get("/api/v1/tasks/" + id)["assigned_worker"], "w.a");
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w.a"));
  line.sidecar().process().Signal(SIGTERM);  // without waiting for the task
  const auto exit = line.sidecar().process().Wait(absl::Seconds(15));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  line.executor("a").process().Signal(SIGCONT);
  line.StartSidecar();
  const Json record = line.WaitForRecord(id);
  EXPECT_EQ(record["status"], "DONE");
  EXPECT_EQ(record["assigned_worker"], "w.b");  // w.a has had its attempt
  EXPECT_EQ(record["attempts"], 1);
}

// The orchestrator's late RUNNING and DISPATCHED (PROTOCOL.md 5.5), many times over: the worker
// never looks busy for good, and no task unfinished.
TEST(OrchestratorLineTest, ManyQuickTasksNeverLeaveTheWorkerLookingBusy) {
  Line line({.orchestrator = true, .orchestrator_env = {{"ORCHESTRATOR_LATE_ORDER_MS", "10"}}});
  std::vector<std::string> ids;
  for (int i = 0; i < 30; ++i) {
    ids.push_back(line.Submit(WithUrl(kEchoOverHttp, line)).at(0));
  }
  for (const std::string& id : ids) EXPECT_EQ(line.WaitForRecord(id)["status"], "DONE");
  EXPECT_TRUE(line.WaitForStatus("IDLE", "w"));
  for (const std::string& id : ids) EXPECT_EQ(line.Get("/api/v1/tasks/" + id)["status"], "DONE");
}

}  // namespace
}  // namespace flowmesh::testing
