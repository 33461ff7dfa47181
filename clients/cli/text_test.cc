#include "clients/cli/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/cli/progress.h"

namespace flowmesh::cli {
namespace {

using ::testing::HasSubstr;

Json J(const char* text) { return ParseJson(text).value(); }

TEST(TextTest, ResultsReadAsTheirOutputs) {
  EXPECT_EQ(ResultText(J(R"({"items":[{"output":"Paris"}]})")), "Paris\n");
  EXPECT_EQ(ResultText(J(R"({"items":[{"output":"a"},{"output":"b"}]})")), "[0] a\n[1] b\n");
  EXPECT_EQ(ResultText(J(R"({"ok":true,"items":[]})")), "{\n  \"ok\": true,\n  \"items\": []\n}\n");
  EXPECT_THAT(ResultText(J(R"({"items":[{"output":3}]})")), HasSubstr("\"output\": 3"));
}

TEST(TextTest, TablesPadTheirColumns) {
  EXPECT_EQ(Table({{"A", "BB", "C"}, {"long", "x", ""}}), "A     BB  C\nlong  x   \n");
}

TEST(TextTest, RecordsOfBothSidesFitOneTable) {
  const std::string local = TaskTableText(J(
      R"([{"task_id":"t","state":"FAILED","worker_id":"w","task_type":"echo","error":"bad\nthing"}])"));
  EXPECT_THAT(local, HasSubstr("t     FAILED  echo  w       -     bad thing"));
  const std::string remote = TaskTableText(
      J(R"([{"task_id":"t","status":"PENDING","assigned_worker":null,"task_type":null,"error":null,
             "graph_node_name":"ask","last_error":null,"waiting_for":"an idle worker that fits"}])"));
  EXPECT_THAT(remote, HasSubstr("PENDING  -     -       ask   waits for an idle worker that fits"));
}

TEST(TextTest, WorkersOfBothSides) {
  EXPECT_THAT(
      WorkersText(
          J(R"([{"worker_id":"w","status":"IDLE","stale":true,"hardware":{"cpu":{"logical_cores":4},
      "memory":{"total_bytes":8589934592},"gpu":{"gpus":[{"name":"NVIDIA H200"}]}}}])")),
      HasSubstr("4 cores, 8.0 GiB, NVIDIA H200  -          no heartbeat"));
  EXPECT_THAT(SidecarText(J(
                  R"({"version":"1","redis":"none","workers":[{"worker_id":"w","status":"STARTING",
      "executor_target":"unix:/e"}]})")),
              HasSubstr("unix:/e (away)"));
}

TEST(ProgressTest, ShowsWhatIsKnown) {
  EXPECT_EQ(Bar(0.5, 4), "[##..]");
  EXPECT_EQ(Bar(7, 4), "[####]");
  v1::TaskProgress progress;
  EXPECT_EQ(ProgressText(progress, absl::Seconds(2)), "running  2.0 s");
  progress.set_stage("generating");
  progress.set_done(1);
  progress.set_unit("items");
  EXPECT_EQ(ProgressText(progress, absl::Seconds(2)), "generating 1 items  2.0 s");
  progress.set_total(2);
  progress.set_tokens_per_second(72.06);
  EXPECT_EQ(ProgressText(progress, absl::Milliseconds(1500)),
            "generating [############............] 1/2 items  72.1 tokens/s  1.5 s");
}

}  // namespace
}  // namespace flowmesh::cli
