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

TEST(ProgressTest, ManyBytesAreMegabytes) {
  v1::TaskProgress progress;
  progress.set_stage("downloading x");
  progress.set_unit("bytes");
  progress.set_done(2'900'000);
  EXPECT_EQ(ProgressText(progress, absl::Seconds(2)), "downloading x 2 MB  2.0 s");
  progress.set_total(58'000'000);
  EXPECT_EQ(ProgressText(progress, absl::Seconds(2)),
            "downloading x [#.......................] 2/58 MB  2.0 s");
  progress.set_done(7);
  progress.set_total(700);
  EXPECT_THAT(ProgressText(progress, absl::Seconds(2)), HasSubstr(" 7/700 bytes"));
}

// Of step `done` of 100.
v1::TaskProgress Step(uint64_t done, double loss = 2) {
  v1::TaskProgress progress;
  progress.set_stage("training");
  progress.set_done(done);
  progress.set_total(100);
  progress.set_unit("steps");
  progress.set_loss(loss);
  return progress;
}

TEST(ProgressTest, ATrainingShowsLossAndTimeLeft) {
  v1::TaskProgress progress = Step(50, 2.1);
  progress.set_tokens_per_second(812.34);
  EXPECT_EQ(ProgressText(progress, absl::Seconds(9), absl::Seconds(21)),
            "training [############............] 50/100 steps  loss 2.100  812.3 tokens/s  9.0 s, "
            "21 s left");
  EXPECT_THAT(ProgressText(Step(1, 0), absl::Seconds(1)), HasSubstr("steps  loss 0.000  1.0 s"));
  EXPECT_THAT(ProgressText(Step(1, 11.0625), absl::Seconds(1)), HasSubstr("loss 11.06 "));
  EXPECT_THAT(ProgressText(Step(1, 1.25e-5), absl::Seconds(1)), HasSubstr("loss 1.250e-05 "));
  const auto left = [](absl::Duration time) {
    const std::string text = ProgressText(Step(1), absl::Seconds(1), time);
    return text.substr(text.find(", ") + 2);
  };
  EXPECT_EQ(left(absl::ZeroDuration()), "0 s left");
  EXPECT_EQ(left(absl::Seconds(120)), "2 min left");
  EXPECT_EQ(left(absl::Minutes(330)), "5.5 h left");
  // On a narrow terminal the bar makes room for what is left.
  EXPECT_EQ(ProgressText(progress, absl::Seconds(9), absl::Seconds(21), 79),
            "training [####.....] 50/100 steps  loss 2.100  812.3 tokens/s  9.0 s, 21 s left");
  EXPECT_THAT(ProgressText(progress, absl::Seconds(9), absl::Seconds(21), 30),
              HasSubstr("training [##..] 50/100 steps"));
}

TEST(TimeLeftTest, IsThatOfTheMeanPace) {
  const absl::Time begin = absl::UnixEpoch();
  TimeLeft left;
  EXPECT_EQ(left.After(Step(1), begin + absl::Seconds(50)), std::nullopt) << "no pace yet";
  EXPECT_EQ(left.After(Step(2), begin + absl::Seconds(51)), absl::Seconds(98));
  EXPECT_EQ(left.After(Step(11), begin + absl::Seconds(60)), absl::Seconds(89));
  // A checkpoint of ten seconds is spread over what was done until then.
  EXPECT_EQ(left.After(Step(21), begin + absl::Seconds(80)), absl::Seconds(79 * 1.5));
  EXPECT_EQ(left.After(Step(100), begin + absl::Seconds(149)), absl::ZeroDuration());
}

TEST(TimeLeftTest, OnlyATrainingHasOneAndEachItsOwn) {
  const absl::Time begin = absl::UnixEpoch();
  TimeLeft left;
  v1::TaskProgress loading = Step(10);
  loading.clear_loss();
  EXPECT_EQ(left.After(loading, begin), std::nullopt);
  loading.set_done(20);
  EXPECT_EQ(left.After(loading, begin + absl::Seconds(1)), std::nullopt);
  // Seen from its middle on.
  EXPECT_EQ(left.After(Step(60), begin + absl::Seconds(2)), std::nullopt);
  EXPECT_EQ(left.After(Step(70), begin + absl::Seconds(12)), absl::Seconds(30));
  // Started anew from an earlier checkpoint: the time in between counts for nothing.
  EXPECT_EQ(left.After(Step(51), begin + absl::Seconds(100)), std::nullopt);
  EXPECT_EQ(left.After(Step(61), begin + absl::Seconds(105)), absl::Seconds(19.5));
  v1::TaskProgress endless = Step(62);
  endless.set_total(0);
  EXPECT_EQ(left.After(endless, begin + absl::Seconds(106)), std::nullopt);
}

}  // namespace
}  // namespace flowmesh::cli
