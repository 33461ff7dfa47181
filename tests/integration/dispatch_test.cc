// Envelopes in, events and files out (PROTOCOL.md 4, 5, 6), with the executor's own echo.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/strings.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

// Stands where the orchestrator takes results.
class Receiver {
 public:
  Receiver() {
    server_.Post(R"(/api/v1/results)",
                 [this](const httplib::Request& request, httplib::Response& reply) {
                   absl::MutexLock lock(&mutex_);
                   bodies_.push_back(ParseJson(request.body).value());
                   authorization_.push_back(request.get_header_value("Authorization"));
                   reply.set_content(R"({"ok":true})", "application/json");
                 });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
  }
  ~Receiver() {
    server_.stop();
    thread_.join();
  }
  std::string url() const { return absl::StrCat("http://127.0.0.1:", port_, "/api/v1/results"); }
  std::vector<Json> bodies() {
    absl::MutexLock lock(&mutex_);
    return bodies_;
  }
  std::vector<std::string> authorization() {
    absl::MutexLock lock(&mutex_);
    return authorization_;
  }

 private:
  httplib::Server server_;
  std::thread thread_;
  int port_ = 0;
  absl::Mutex mutex_;
  std::vector<Json> bodies_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> authorization_ ABSL_GUARDED_BY(mutex_);
};

std::vector<std::string> TypesOf(Line& line, const std::string& task_id) {
  std::vector<std::string> types;
  for (const Json& event : line.events().All([&](const Json& e) {
         return e.value("task_id", "") == task_id ||
                (e["payload"].is_object() && e["payload"].value("task_id", "") == task_id) ||
                (e["payload"].is_object() && e["payload"].value("last_task", "") == task_id);
       })) {
    std::string type = event["type"].get<std::string>();
    if (type == "STATUS") type += " " + event["status"].get<std::string>();
    types.push_back(type);
  }
  return types;
}

TEST(DispatchTest, EchoDeliversLocally) {
  Line line;
  Json spec = kEcho;
  spec["output"] = {{"artifacts", {"responses.json", "logs", "missing.bin"}}};
  const std::string id = line.Dispatch(spec);
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");
  EXPECT_EQ((*done)["error"], nullptr);
  EXPECT_EQ((*done)["payload"]["taskType"], "echo");
  EXPECT_EQ(line.ResultFile(id), Json({{"ok", true}, {"echo", spec}}));

  const Json manifest = line.ResultFile(id, "manifest.json");
  EXPECT_EQ(manifest["task_id"], id);
  std::map<std::string, std::string> status;
  for (const Json& entry : manifest["entries"]) status[entry["name"]] = entry["status"];
  EXPECT_EQ(status["responses.json"], "present");
  EXPECT_EQ(status["logs"], "present");
  EXPECT_EQ(status["artifacts"], "present");
  EXPECT_EQ(status["missing.bin"], "missing");
  EXPECT_TRUE(std::filesystem::is_directory(line.results() / id / "artifacts"));

  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  ASSERT_TRUE(line.events().WaitFor([&](const Json& e) {
    return e["type"] == "STATUS" && e["payload"].is_object() &&
           e["payload"].value("last_task", "") == id;
  }));
  EXPECT_THAT(TypesOf(line, id),
              ElementsAre("STATUS RUNNING", "TASK_STARTED", "TASK_SUCCEEDED", "STATUS IDLE"));
}

TEST(DispatchTest, EchoDeliversOverHttpBeforeItsTerminalEvent) {
  Receiver receiver;
  Line line;
  Json spec = kEcho;
  spec["output"] = {{"destination",
                     {{"type", "HTTP"},
                      {"url", receiver.url()},
                      {"headers", {{"Authorization", "Bearer abc"}}}}}};
  const std::string id = line.Dispatch(spec);
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");
  const std::vector<Json> bodies = receiver.bodies();
  ASSERT_EQ(bodies.size(), 1u);
  EXPECT_EQ(
      bodies[0],
      Json({{"task_id", id}, {"result", {{"ok", true}, {"echo", spec}}}, {"worker_id", "w"}}));
  EXPECT_THAT(receiver.authorization(), ElementsAre("Bearer abc"));
}

TEST(DispatchTest, AnUnreachableDestinationFailsTheTaskAndKeepsTheFiles) {
  Line line({.sidecar_env = {{"DELIVERY_TIMEOUT_SEC", "0"}}});
  Json spec = kEcho;
  spec["output"] = {
      {"destination", {{"type", "http"}, {"url", "http://127.0.0.1:1/api/v1/results"}}}};
  const std::string id = line.Dispatch(spec);
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_FAILED");
  EXPECT_THAT((*done)["error"].get<std::string>(), HasSubstr("127.0.0.1:1"));
  EXPECT_EQ(line.ResultFile(id)["ok"], true);
  EXPECT_EQ(line.ResultFile(id, "manifest.json")["task_id"], id);
}

TEST(DispatchTest, BadTasksFailWithTheFieldAndTheWorkerLivesOn) {
  Line line;
  struct Case {
    Json spec;
    std::string error;
  };
  const std::vector<Case> cases = {
      {{{"taskType", "embedding"}},
       "spec.taskType: unknown type 'embedding'; known types: agent, dpo"},
      {Json::object(), "spec.taskType: required, got nothing; known types:"},
      {{{"taskType", 7}}, "spec.taskType"},
      {"text", "spec: expected a map, got \"text\""},
      {{{"taskType", "echo"},
        {"output", {{"destination", {{"type", "local"}, {"path", "../../out"}}}}}},
       "spec.output.destination.path"},
      {{{"taskType", "echo"}, {"output", "x"}}, "spec.output: expected a map"},
  };
  for (const Case& c : cases) {
    const std::string id = line.Dispatch(c.spec);
    const auto done = line.events().WaitForTerminal(id);
    ASSERT_TRUE(done) << DumpJson(c.spec);
    EXPECT_EQ((*done)["type"], "TASK_FAILED") << DumpJson(c.spec);
    EXPECT_THAT((*done)["error"].get<std::string>(), HasSubstr(c.error));
    EXPECT_TRUE(line.events().WaitForStarted(id));
  }
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ((*line.events().WaitForTerminal(line.Dispatch(kEcho)))["type"], "TASK_SUCCEEDED");
}

TEST(DispatchTest, ATaskIdThatIsNoFileNameNeverBecomesAPath) {
  Line line;
  for (const std::string id : {"../escape", "a/b", "..", "sp ace"}) {
    line.redis().Publish("tasks", Line::Envelope(id, kEcho, "w"));
    const auto done = line.events().WaitForTerminal(id);
    ASSERT_TRUE(done) << id;
    EXPECT_EQ((*done)["type"], "TASK_FAILED");
    EXPECT_THAT((*done)["error"].get<std::string>(), HasSubstr("task_id"));
  }
  EXPECT_FALSE(std::filesystem::exists(line.dir() / "escape"));
}

TEST(DispatchTest, MalformedAndForeignMessagesAreCountedAndDropped) {
  Line line({.sidecar_env = {{"MAX_MESSAGE_BYTES", "1048576"}}});
  const std::string nested = std::string(100000, '[');
  for (const std::string& message :
       {std::string("not json"), std::string("[1,2]"), std::string("\xff\xfe"), std::string("null"),
        nested, std::string(R"({"assigned_worker":"w"})"),
        std::string(R"({"assigned_worker":7,"task_id":"t"})"),
        DumpJson(Line::Envelope("foreign", kEcho, "somebody-else")),
        DumpJson(Line::Envelope("", kEcho, "w")), std::string(R"({"assigned_worker":"w")"),
        std::string("{\"assigned_worker\":\"w\", \"x\": \"\xff\"}"), std::string(R"(["w"])"),
        DumpJson({{"text", std::string(size_t{1} << 20, 'x')}})}) {
    line.redis().Command({"PUBLISH", "tasks", message});
  }
  const std::string id = line.Dispatch(kEcho);
  EXPECT_EQ((*line.events().WaitForTerminal(id))["type"], "TASK_SUCCEEDED");
  for (const Json& event : line.events().All([](const Json& e) { return e.contains("task_id"); })) {
    EXPECT_EQ(event["task_id"], id);
  }
  HttpRequest request;
  request.url = line.metrics_url() + "/metrics";
  const std::string metrics = HttpClient().Send(request)->body;
  for (const auto& [outcome, count] : std::map<std::string, int>{{"not_json", 1},
                                                                 {"not_utf8", 1},
                                                                 {"not_a_map", 1},
                                                                 {"no_task_id", 2},
                                                                 {"too_large", 1},
                                                                 {"foreign", 7},
                                                                 {"accepted", 1}}) {
    EXPECT_THAT(metrics, HasSubstr(absl::StrCat("flowmesh_messages_total{outcome=\"", outcome,
                                                "\"} ", count, "\n")));
  }
  for (const char* detail : {"task_id: required, got nothing", "a message of 1048587 bytes"}) {
    EXPECT_THAT(line.sidecar().Output(), HasSubstr(std::string("is dropped: ") + detail));
  }
}

TEST(DispatchTest, BareNanInAnEnvelopeIsNoReasonToDropIt) {
  Line line;
  Json envelope = Line::Envelope("nan-task", kEcho, "w");
  std::string text = DumpJson(envelope);
  text.insert(text.find("\"taskType\""), "\"x\": NaN, \"y\": -Infinity, ");
  line.redis().Command({"PUBLISH", "tasks", text});
  const auto done = line.events().WaitForTerminal("nan-task");
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");
}

TEST(DispatchTest, ADuplicateRunsOnceAndQueuedTasksRunInOrder) {
  Line line;
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) {
    const std::string id = absl::StrCat("t", i);
    const Json envelope = Line::Envelope(id, kEcho, "w");
    line.redis().Publish("tasks", envelope);
    line.redis().Publish("tasks", envelope);
    ids.push_back(id);
  }
  for (const std::string& id : ids) ASSERT_TRUE(line.events().WaitForTerminal(id)) << id;
  const auto tasks_of = [&](const char* type) {
    std::vector<std::string> tasks;
    for (const Json& event : line.events().All([&](const Json& e) { return e["type"] == type; })) {
      tasks.push_back(event["task_id"].get<std::string>());
    }
    return tasks;
  };
  EXPECT_EQ(tasks_of("TASK_STARTED"), ids);
  // Deliveries overlap, so that one may overtake another.
  EXPECT_THAT(tasks_of("TASK_SUCCEEDED"), ::testing::UnorderedElementsAreArray(ids));
}

TEST(DispatchTest, TwoExecutorsAreTwoWorkers) {
  Line line({.executors = {"a", "b"}});
  EXPECT_EQ(line.redis().Command({"SMEMBERS", "workers:ids"}).size(), 2u);
  const std::string first = line.Dispatch(kEcho, Json::object(), "w.a");
  const std::string second = line.Dispatch(kEcho, Json::object(), "w.b");
  const auto done_first = line.events().WaitForTerminal(first);
  const auto done_second = line.events().WaitForTerminal(second);
  ASSERT_TRUE(done_first && done_second);
  EXPECT_EQ((*done_first)["worker_id"], "w.a");
  EXPECT_EQ((*done_second)["worker_id"], "w.b");
}

TEST(DispatchTest, ALostExecutorMakesTheWorkerUnavailableUntilItIsBack) {
  Line line;
  line.executor("e0").process().Terminate(absl::ZeroDuration());
  ASSERT_TRUE(line.WaitForStatus("STARTING", "w"));
  line.StartExecutor("e0");
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ((*line.events().WaitForTerminal(line.Dispatch(kEcho)))["type"], "TASK_SUCCEEDED");
}

}  // namespace
}  // namespace flowmesh::testing
