#include "sidecar/metrics/health.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "sidecar/metrics/http_endpoint.h"

namespace flowmesh::sidecar {
namespace {

HealthPart Tree() {
  return {.name = "sidecar",
          .parts = {{.name = "redis", .detail = "ready"},
                    {.name = "executor e0", .parts = {{.name = "task t1", .detail = "3 of 10"}}}}};
}

TEST(HealthTest, AllReady) {
  const HealthPart tree = Tree();
  EXPECT_TRUE(tree.ready());
  EXPECT_EQ(tree.Why(), "");
  const Json expected = ParseJson(R"({
      "name": "sidecar", "ready": true,
      "parts": [{"name": "redis", "ready": true, "detail": "ready"},
                {"name": "executor e0", "ready": true,
                 "parts": [{"name": "task t1", "ready": true, "detail": "3 of 10"}]}]})")
                            .value();
  EXPECT_EQ(tree.ToJson(), expected);
}

TEST(HealthTest, AProblemBelowIsAProblemAboveAndNotBeside) {
  HealthPart tree = Tree();
  tree.parts[1].parts[0].problem = "silent for 31m";
  EXPECT_FALSE(tree.ready());
  EXPECT_EQ(tree.Why(), "executor e0: task t1: silent for 31m");
  const Json json = tree.ToJson();
  EXPECT_EQ(json["ready"], false);
  EXPECT_EQ(json["reason"], "executor e0: task t1: silent for 31m");
  EXPECT_EQ(json["parts"][0]["ready"], true);
  EXPECT_EQ(json["parts"][1]["ready"], false);
  EXPECT_EQ(json["parts"][1]["parts"][0]["reason"], "silent for 31m");
}

TEST(HealthTest, TheFirstProblemIsTold) {
  HealthPart tree = Tree();
  tree.parts[0].problem = "lost";
  tree.parts[1].problem = "not available";
  EXPECT_EQ(tree.Why(), "redis: lost");
  tree.problem = "stopping";
  EXPECT_EQ(tree.Why(), "stopping");
}

TEST(HealthTest, ATaskTellsItsProgressUntilItIsSilentForTooLong) {
  v1::TaskProgress progress;
  HealthPart task = HealthOfTask("t1", absl::Milliseconds(2900), progress);
  EXPECT_EQ(task.name, "task t1");
  EXPECT_EQ(task.detail, "last sign 2s ago");
  EXPECT_TRUE(task.ready());
  progress.set_stage("training");
  EXPECT_EQ(HealthOfTask("t1", absl::ZeroDuration(), progress).detail, "training, last sign 0 ago");
  progress.set_done(3);
  progress.set_total(10);
  progress.set_unit("steps");
  task = HealthOfTask("t1", absl::Minutes(30), progress);
  EXPECT_EQ(task.detail, "training, 3 of 10 steps, last sign 30m ago");
  EXPECT_TRUE(task.ready());
  task = HealthOfTask("t1", absl::Minutes(30) + absl::Seconds(1), progress);
  EXPECT_FALSE(task.ready());
  EXPECT_EQ(task.Why(), "it has given no sign for 30m1s");
}

TEST(HttpEndpointTest, TwoDoNotShareAPort) {
  Endpoint at = ParseEndpoint("127.0.0.1:0").value();
  const auto first = HttpEndpoint::Start(at, {});
  ASSERT_TRUE(first.ok()) << first.status();
  at.port = (*first)->port();
  EXPECT_EQ(Message(HttpEndpoint::Start(at, {}).status()),
            absl::StrCat("METRICS_LISTEN: cannot listen on 127.0.0.1:", at.port));
}

}  // namespace
}  // namespace flowmesh::sidecar
