// The line with the local orchestrator in front: YAML in, stored results out (PROTOCOL.md 12).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

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
  Line line({.orchestrator = true});
  line.StopSidecar();
  const std::vector<std::string> ids = line.Submit(
      WithUrl("spec: {taskType: echo, output: {destination: {type: http, url: \"$URL\"}}}", line));
  line.StartSidecar();
  EXPECT_EQ(line.WaitForRecord(ids.at(0))["status"], "DONE");
}

// The orchestrator's late RUNNING (PROTOCOL.md 5.5), many times over: the worker never looks busy
// for good.
TEST(OrchestratorLineTest, ManyQuickTasksNeverLeaveTheWorkerLookingBusy) {
  Line line({.orchestrator = true});
  std::vector<std::string> ids;
  for (int i = 0; i < 30; ++i) {
    ids.push_back(
        line
            .Submit(WithUrl(
                "spec: {taskType: echo, output: {destination: {type: http, url: \"$URL\"}}}", line))
            .at(0));
  }
  for (const std::string& id : ids) EXPECT_EQ(line.WaitForRecord(id)["status"], "DONE");
  EXPECT_TRUE(line.WaitForStatus("IDLE", "w"));
}

}  // namespace
}  // namespace flowmesh::testing
