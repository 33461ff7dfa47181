// Registration, status and shutdown of the sidecar, seen from Redis (PROTOCOL.md 2, 3, 5).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/strings.h"
#include "common/test_listener.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

TEST(ControlTest, RegistersAsTheProtocolSays) {
  Line line;
  RedisPeer& redis = line.redis();
  EXPECT_EQ(redis.Command({"SISMEMBER", "workers:ids", "w"}), 1);
  EXPECT_EQ(redis.HashField("worker:w", "worker_id"), "w");
  EXPECT_EQ(redis.HashField("worker:w", "env_json"), "{}");
  EXPECT_EQ(redis.HashField("worker:w", "tags_json"), "[]");
  EXPECT_EQ(redis.HashField("worker:w", "cost_per_hour"), "1.0");
  const Json hardware = ParseJson(redis.HashField("worker:w", "hardware_json")).value();
  EXPECT_GE(hardware["cpu"]["logical_cores"].get<int>(), 1);
  EXPECT_GT(hardware["memory"]["total_bytes"].get<int64_t>(), int64_t{1} << 28);
  EXPECT_TRUE(hardware["gpu"]["gpus"].is_array());
  const int64_t ttl = redis.Command({"TTL", "worker:w:hb"}).get<int64_t>();
  EXPECT_GT(ttl, 100);
  EXPECT_LE(ttl, 120);

  const auto registered =
      line.events().WaitFor([](const Json& e) { return e["type"] == "REGISTER"; });
  ASSERT_TRUE(registered);
  EXPECT_EQ((*registered)["status"], "STARTING");
  const auto beat = line.events().WaitFor([](const Json& e) { return e["type"] == "HEARTBEAT"; });
  ASSERT_TRUE(beat);
  EXPECT_TRUE((*beat)["metrics"]["power"].is_object());
  EXPECT_TRUE((*beat)["payload"].is_object());
  const auto idle = line.events().WaitFor(
      [](const Json& e) { return e["type"] == "STATUS" && e["status"] == "IDLE"; });
  ASSERT_TRUE(idle);
  EXPECT_EQ((*idle)["payload"], Json::object());
}

// The rule as README gives it, with everything else of Redis forbidden to the worker.
TEST(ControlTest, ReadmesAclRuleIsEnough) {
  const std::string readme =
      ReadFile(std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "README.md").value();
  const size_t begin = readme.find("ACL SETUSER worker");
  ASSERT_NE(begin, std::string::npos);
  const std::string rule = readme.substr(begin, readme.find('`', begin) - begin);
  Line line({.redis_setup = SplitTrimmed(rule, ' '), .redis_login = "worker:PASSWORD@"});
  const std::string id = line.Dispatch(kEcho);
  EXPECT_EQ((*line.events().WaitForTerminal(id))["type"], "TASK_SUCCEEDED");
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.sidecar().process().Wait(absl::Seconds(15)));
  EXPECT_TRUE(line.events().WaitFor([](const Json& e) { return e["type"] == "UNREGISTER"; }));
  EXPECT_EQ(line.redis().Command({"ACL", "LOG"}), Json::array()) << "refused commands";
}

TEST(ControlTest, SigtermUnregistersAndExitsWithZero) {
  Line line;
  line.sidecar().process().Signal(SIGTERM);
  const auto exit = line.sidecar().process().Wait(absl::Seconds(15));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 0);
  EXPECT_EQ(line.redis().Command({"EXISTS", "worker:w", "worker:w:hb"}), 0);
  ASSERT_TRUE(line.events().WaitFor([](const Json& e) { return e["type"] == "UNREGISTER"; }));
  // Withdrawn before it went away.
  std::vector<std::string> order;
  for (const Json& e : line.events().All([](const Json& e) {
         return e["type"] == "UNREGISTER" || (e["type"] == "STATUS" && e["status"] == "STOPPING");
       })) {
    order.push_back(e["type"].get<std::string>());
  }
  EXPECT_THAT(order, ::testing::ElementsAre("STATUS", "UNREGISTER"));
}

TEST(ControlTest, RegistersAgainAfterFlushdbAndStillWorks) {
  Line line;
  const std::string started_at = line.redis().HashField("worker:w", "started_at");
  line.redis().Command({"FLUSHDB"});
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  EXPECT_EQ(line.redis().HashField("worker:w", "started_at"), started_at);
  EXPECT_TRUE(Eventually([&] {
    return line.redis().Command({"TTL", "worker:w:hb"}).get<int>() >= 1;
  }));
  const std::string id = line.Dispatch(kEcho);
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");
}

// By listening alone: no beat is due, and no terminal event is followed by looks at the hash
// (PROTOCOL.md 5.5).
TEST(ControlTest, CorrectsAForeignRunning) {
  Line line({.sidecar_env = {{"TERMINAL_EVENT_FLOOR_MS", "0"}, {"HEARTBEAT_INTERVAL_SEC", "60"}}});
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  // The orchestrator's late write; twice, for a look every 5 s could mend one of them.
  for (int i = 0; i < 2; ++i) {
    line.redis().Command({"HSET", "worker:w", "status", "RUNNING"});
    line.redis().Publish("workers.events", {{"type", "STATUS"},
                                            {"worker_id", "w"},
                                            {"status", "RUNNING"},
                                            {"ts", "2025-11-03T09:00:00.000001+00:00"}});
    EXPECT_TRUE(line.WaitForStatus("IDLE", "w", absl::Seconds(1)));
  }
}

TEST(ControlTest, ComparesTheStatusSoonAfterATask) {
  Line line;
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForTerminal(id));
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  // Nobody tells it: it looks 2 s after the task's end, long before its next heartbeat.
  line.redis().Command({"HSET", "worker:w", "status", "RUNNING"});
  EXPECT_TRUE(line.WaitForStatus("IDLE", "w", absl::Seconds(3)));
}

TEST(ControlTest, ServesMetricsAndHealth) {
  Line line;
  HttpClient client;
  for (const std::string path : {"/metrics", "/healthz", "/readyz"}) {
    HttpRequest request;
    request.url = line.metrics_url() + path;
    const absl::StatusOr<HttpResponse> response = client.Send(request);
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->status, 200) << path;
    if (path == "/metrics") {
      EXPECT_THAT(response->body, ::testing::HasSubstr("flowmesh_"));
    }
  }
}

TEST(ControlTest, WrongConfigurationEndsWithStatusOneAndOneLine) {
  struct Case {
    std::string name, value, complaint;
  };
  const Case wrong[] = {
      {"HEARTBEAT_INTERVAL_SEC", "abc", "an integer from 1 to 1048576, got \"abc\""},
      {"HEARTBEAT_INTERVAL_SEC", "0", "an integer from 1 to 1048576, got \"0\""},
      {"REDIS_PORT", "0", "an integer from 1 to 65535, got \"0\""},
      {"WORKER_ID", "a b",
       "at most 128 bytes of UTF-8 without white space, control characters or '/', got \"a b\""},
      {"WORKER_COST_PER_HOUR", "-1", "a number of at least 0, got \"-1\""},
      {"ORCHESTRATOR_BASE_URL", "ftp://x", "an http or https URL, got \"ftp://x\""},
      {"EXECUTOR_ENDPOINTS", "a=127.0.0.1:1,a=127.0.0.1:2", "each name once, got \"a\""},
      {"MAX_MESSAGE_BYTES", "10", "an integer of at least 1048576, got \"10\""},
      {"DRAIN_TIMEOUT_SEC", "soon", "a number of at least 0, got \"soon\""},
      {"METRICS_LISTEN", "nowhere", "host:port or off, got \"nowhere\""},
      {"WORKER_NETWORK_BANDWIDTH_BYTES_PER_SEC", "0", "a number greater than 0, got \"0\""}};
  const TempDir dir;
  const TestListener redis;
  for (const auto& [name, value, complaint] : wrong) {
    Program program("flowmesh-sidecar",
                    {{name, value},
                     {"REDIS_URL", absl::StrCat("redis://127.0.0.1:", redis.port())},
                     {"STATE_DIR", dir / "s"},
                     {"RESULTS_DIR", dir / "r"}},
                    dir.path());
    const auto exit = program.process().Wait(absl::Seconds(10));
    ASSERT_TRUE(exit) << name;
    EXPECT_EQ(exit->exit_code, 1) << name;
    EXPECT_EQ(program.Output(),
              absl::StrCat("flowmesh-sidecar: ", name, ": expected ", complaint, "\n"));
  }
  pollfd connection{redis.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&connection, 1, 0), 0) << "Redis was touched";
}

TEST(ControlTest, SecretsStayOutOfTheLog) {
  TempDir dir;
  RedisServer server;
  const std::string secret = "canary" + RandomHex(6);
  Program program("flowmesh-sidecar",
                  {{"REDIS_URL", "redis://user:" + secret + "@127.0.0.1:1/0"},
                   {"ORCHESTRATOR_TOKEN", secret + "t"},
                   {"METRICS_LISTEN", "off"},
                   {"SIDECAR_LISTEN", "unix:" + (dir / "s.sock").string()},
                   {"STATE_DIR", dir / "s"},
                   {"RESULTS_DIR", dir / "r"}},
                  dir.path());
  ASSERT_TRUE(program.WaitForOutput("127.0.0.1"));
  program.process().Terminate(absl::Seconds(10));
  EXPECT_EQ(program.Output().find(secret), std::string::npos) << program.Output();
}

}  // namespace
}  // namespace flowmesh::testing
