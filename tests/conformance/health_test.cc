// /readyz tells which part is not ready and why; /healthz only that the process lives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "clients/cpp/sidecar_client.h"
#include "common/strings.h"
#include "tests/conformance/http_get.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::MatchesRegex;

class HealthTest : public ::testing::Test {
 protected:
  HealthTest()
      : line_({.executor_env = {{"EXECUTOR_RANK_BIN", absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"),
                                                                   "/../tests/scripted_rank")}}}) {}

  Json Ready(int expected_status) {
    const HttpResponse response = HttpGet(line_.metrics_url() + "/readyz");
    EXPECT_EQ(response.status, expected_status) << response.body;
    const absl::StatusOr<Json> tree = ParseJson(response.body);
    EXPECT_TRUE(tree.ok()) << response.body;
    return tree.value_or(Json::object());
  }
  bool WaitForReason(const std::string& reason) {
    return Eventually([&] {
      return ParseJson(HttpGet(line_.metrics_url() + "/readyz").body)->value("reason", "") ==
             reason;
    });
  }
  int Alive() { return HttpGet(line_.metrics_url() + "/healthz").status; }

  Line line_;
};

TEST_F(HealthTest, ATreeOfPartsAndTheTaskOnItsRanks) {
  const Json idle = ParseJson(R"({"name": "sidecar", "ready": true, "parts": [
      {"name": "redis", "ready": true, "detail": "ready"},
      {"name": "executor e0", "ready": true}]})")
                        .value();
  EXPECT_EQ(Ready(200), idle);
  client::SidecarClient client(line_.sidecar_target());
  const std::string id =
      client
          .Submit(
              {{"spec", {{"taskType", "inference"}, {"script", {"progress 3", "until_stopped"}}}}})
          ->task_id();
  ASSERT_TRUE(Eventually([&] { return client.Get(id)->progress().done() == 3; }));
  const Json tree = Ready(200);
  const Json& task = tree["parts"][1]["parts"][0];
  EXPECT_EQ(task["name"], "task " + id);
  EXPECT_EQ(task["ready"], true);
  EXPECT_THAT(task["detail"].get<std::string>(),
              MatchesRegex("scripted, 3, last sign [0-9]+s? ago"));
  ASSERT_TRUE(client.Cancel(id).ok());
}

TEST_F(HealthTest, ALostExecutorIsNamedAndTheProcessLives) {
  line_.executor("e0").process().Signal(SIGKILL);
  EXPECT_TRUE(WaitForReason("executor e0: not available"));
  const Json tree = Ready(503);
  EXPECT_EQ(tree["ready"], false);
  EXPECT_EQ(tree["parts"][0]["ready"], true) << "Redis is not to blame";
  EXPECT_EQ(tree["parts"][1]["reason"], "not available");
  EXPECT_EQ(Alive(), 200);
  line_.StartExecutor("e0");
  EXPECT_TRUE(WaitForReason(""));
  Ready(200);
}

TEST_F(HealthTest, ALostRedisIsNamedAndTheProcessLives) {
  line_.server().Kill();
  EXPECT_TRUE(WaitForReason("redis: lost"));
  EXPECT_EQ(Ready(503)["parts"][1]["ready"], true) << "the executor is not to blame";
  EXPECT_EQ(Alive(), 200);
  line_.server().Start();
  line_.ObserveAgain();
  EXPECT_TRUE(WaitForReason(""));
}

}  // namespace
}  // namespace flowmesh::testing
