// The names of metrics are API: dashboards and alerts use them. metrics.golden lists all of them as
// `name type labels`; a change of the list is a change of the contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/sidecar_client.h"
#include "common/endpoint.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "tests/conformance/http_get.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

struct Family {
  std::string type;
  std::set<std::string> labels;
};

// What Prometheus' text form holds, by name.
std::map<std::string, Family> Families(const std::string& text) {
  static const std::regex label(R"re(([a-zA-Z_]+)="(?:[^"\\]|\\.)*")re");
  std::map<std::string, Family> families;
  std::string current;
  for (const std::string& line : SplitTrimmed(text, '\n')) {
    if (absl::StartsWith(line, "# TYPE ")) {
      const std::vector<std::string> words = SplitTrimmed(line, ' ');
      current = words.at(2);
      families[current].type = words.at(3);
    }
    if (line[0] == '#') continue;
    EXPECT_TRUE(absl::StartsWith(line, current)) << line;
    for (std::sregex_iterator it(line.begin(), line.end(), label), end; it != end; ++it) {
      if ((*it)[1] != "le") families[current].labels.insert((*it)[1]);
    }
  }
  return families;
}

std::string ToGolden(const std::map<std::string, Family>& families) {
  std::string text;
  for (const auto& [name, family] : families) {
    absl::StrAppend(&text, name, " ", family.type, " ",
                    family.labels.empty() ? "-" : absl::StrJoin(family.labels, ","), "\n");
  }
  return text;
}

std::filesystem::path BuildTests() {
  return std::filesystem::path(std::getenv("FLOWMESH_BIN_DIR")) / "../tests";
}

class MetricsTest : public ::testing::Test {
 protected:
  MetricsTest()
      : receiver_([](const httplib::Request&, httplib::Response&) {}),
        executor_metrics_(absl::StrCat("127.0.0.1:", FreeLoopbackPort().value())),
        line_({.sidecar_env = {{"WORKER_NETWORK_BANDWIDTH_BYTES_PER_SEC", "100000000"}},
               // With GPUs of a driver that is made up, so that their metrics are there too.
               .executor_env = {{"EXECUTOR_METRICS_LISTEN", executor_metrics_},
                                {"EXECUTOR_DEVICES", "auto"},
                                {"EXECUTOR_RANK_BIN", BuildTests() / "scripted_rank"},
                                {"SCRIPTED_RANK_DESCRIBE", "cuda"},
                                {"LD_LIBRARY_PATH", BuildTests() / "fake_nvml"}}}) {}

  Json End(const std::string& id) {
    const auto end = line_.events().WaitForTerminal(id);
    EXPECT_TRUE(end);
    return end.value_or(Json::object());
  }
  std::string Sidecar() { return HttpGet(line_.metrics_url() + "/metrics").body; }
  std::string Executor() { return HttpGet("http://" + executor_metrics_ + "/metrics").body; }

  TestHttpServer receiver_;
  const std::string executor_metrics_;
  Line line_;
};

TEST_F(MetricsTest, AreThoseOfTheGoldenList) {
  Json echo = {{"taskType", "echo"}};
  echo["output"] = {{"destination", {{"type", "http"}, {"url", receiver_.url("/results")}}}};
  EXPECT_EQ(End(line_.Dispatch(echo))["type"], "TASK_SUCCEEDED");
  EXPECT_EQ(End(line_.Dispatch({{"taskType", "inference"}, {"script", {"crash 6"}}}))["type"],
            "TASK_FAILED");
  const std::string golden = ReadFile(std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) /
                                      "tests/conformance/metrics.golden")
                                 .value();
  std::map<std::string, Family> families = Families(Sidecar());
  families.merge(Families(Executor()));
  // Of the library that serves them: not ours to promise.
  std::erase_if(families,
                [](const auto& family) { return family.first.rfind("exposer_", 0) == 0; });
  EXPECT_EQ(ToGolden(families), golden);
  for (const auto& [name, family] : families) {
    EXPECT_EQ(name.substr(0, 9), "flowmesh_");
    EXPECT_EQ(absl::EndsWith(name, "_total"), family.type == "counter") << name;
    EXPECT_FALSE(std::regex_search(name, std::regex("_(ms|millis|kb|mb|pct|minutes)(_|$)")))
        << name;
  }
}

TEST_F(MetricsTest, CountWhatHappens) {
  using ::testing::HasSubstr;
  Json echo = {{"taskType", "echo"}};
  echo["output"] = {{"destination", {{"type", "http"}, {"url", receiver_.url("/results")}}}};
  End(line_.Dispatch(echo));
  const uint64_t sent = receiver_.requests().at(0).body.size();
  End(line_.Dispatch({{"taskType", "inference"}, {"script", {"crash 6"}}}));
  End(line_.Dispatch({{"taskType", "nonsense"}}));
  line_.redis().Publish("tasks", {"w"});
  line_.redis().Publish("tasks", {{"task_id", "t"}, {"assigned_worker", "somebody"}});

  // A task that runs until it is told to end.
  client::SidecarClient client(line_.sidecar_target());
  const std::string id =
      client
          .Submit(
              {{"spec", {{"taskType", "inference"}, {"script", {"progress 3", "until_stopped"}}}}})
          ->task_id();
  ASSERT_TRUE(Eventually([&] { return client.Get(id)->progress().done() == 3; }));
  EXPECT_THAT(Sidecar(), HasSubstr(R"(flowmesh_worker_status{worker="w",status="RUNNING"} 1)"));
  EXPECT_THAT(Executor(), HasSubstr("flowmesh_executor_busy 1\n"));
  EXPECT_THAT(Executor(), HasSubstr("flowmesh_executor_ranks 1\n"));
  ASSERT_TRUE(client.Cancel(id).ok());
  ASSERT_TRUE(Eventually([&] {
    return absl::StrContains(Sidecar(), R"(flowmesh_worker_status{worker="w",status="IDLE"} 1)");
  }));

  const std::string sidecar = Sidecar();
  for (const std::string& sample : std::vector<std::string>{
           R"(flowmesh_tasks_total{outcome="succeeded",type="echo"} 1)",
           R"(flowmesh_tasks_total{outcome="failed",type="inference"} 2)",
           R"(flowmesh_tasks_total{outcome="failed",type="other"} 1)",
           R"(flowmesh_task_failures_total{cause="rank_died"} 1)",
           R"(flowmesh_task_failures_total{cause="cancelled"} 1)",
           R"(flowmesh_task_failures_total{cause="invalid_spec"} 1)",
           R"(flowmesh_task_failures_total{cause="delivery"} 0)",
           R"(flowmesh_task_stage_seconds_count{stage="running"} 4)",
           R"(flowmesh_messages_total{outcome="accepted"} 3)",
           R"(flowmesh_messages_total{outcome="foreign"} 1)",
           R"(flowmesh_messages_total{outcome="not_a_map"} 1)",
           R"(flowmesh_delivery_attempts_total{kind="result",outcome="delivered"} 1)",
           absl::StrCat(R"(flowmesh_delivery_sent_bytes_total{kind="result"} )", sent),
           R"(flowmesh_delivery_attempt_seconds_count{kind="result"} 1)",
           "flowmesh_delivery_limit_bytes_per_second 100000000",
           R"(flowmesh_cancels_total{outcome="ended"} 1)",
           "flowmesh_cancel_seconds_count 1",
           R"(flowmesh_registrations_total{reason="start"} 1)",
           R"(flowmesh_redis_state{state="ready"} 1)",
           R"(flowmesh_redis_state{state="lost"} 0)",
           R"(flowmesh_executor_available{executor="e0"} 1)",
           R"(flowmesh_worker_status{worker="w",status="IDLE"} 1)",
           R"(flowmesh_worker_status{worker="w",status="RUNNING"} 0)",
           "flowmesh_journal_open_tasks 0",
           "flowmesh_journal_kept_tasks 4",
           "flowmesh_journal_failures_total 0",
           "flowmesh_subscription_alive 1",
           "flowmesh_subscription_losses_total 0"}) {
    EXPECT_THAT(sidecar, HasSubstr(sample + "\n"));
  }
}

// What was missed cannot be known, how long nobody listened can (PROTOCOL.md 2.6).
TEST_F(MetricsTest, ALostSubscriptionIsCountedWithItsTime) {
  line_.redis().Command({"CLIENT", "KILL", "TYPE", "pubsub"});
  ASSERT_TRUE(Eventually([&] {
    const std::string text = Sidecar();
    return absl::StrContains(text, "flowmesh_subscription_losses_total 1\n") &&
           absl::StrContains(text, "flowmesh_subscription_alive 1\n");
  }));
  EXPECT_FALSE(absl::StrContains(Sidecar(), "flowmesh_deaf_seconds_total 0\n"));
}

}  // namespace
}  // namespace flowmesh::testing
