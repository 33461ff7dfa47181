// Every row of PROTOCOL.md 12.1 with its status codes.
#include "clients/orchestrator/http_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/orchestrator/scripted_worker.h"

namespace flowmesh::orchestrator {
namespace {

using ::testing::HasSubstr;

constexpr char kJson[] = "application/json";

class HttpApiTest : public ::testing::Test {
 protected:
  // Status of a POST, and the body for a closer look.
  int Post(const std::string& path, const std::string& body, const std::string& type) {
    const auto answer = http_.Post(path, body, type);
    if (!answer) return -1;
    body_ = answer->body;
    return answer->status;
  }
  int Get(const std::string& path, const httplib::Headers& headers = {}) {
    const auto answer = http_.Get(path, headers);
    if (!answer) return -1;
    body_ = answer->body;
    return answer->status;
  }
  Json Body() const { return ParseJson(body_).value_or(Json()); }

  RedisServer redis_;
  TestOrchestrator orchestrator_{redis_};
  httplib::Client http_{orchestrator_.url()};
  std::string body_;
};

TEST_F(HttpApiTest, PathsAndMethods) {
  EXPECT_EQ(Get("/healthz"), 200);
  EXPECT_EQ(Body(), Json({{"ok", true}}));
  EXPECT_EQ(Get("/nowhere"), 404);
  EXPECT_EQ(Body(), Json({{"detail", "Not Found"}}));
  EXPECT_EQ(Get("/api/v1/results"), 405);
  const auto removed = http_.Delete("/api/v1/tasks");
  EXPECT_EQ(removed->status, 405);
  EXPECT_EQ(removed->get_header_value("Allow"), "GET, POST");
  const auto moved = http_.Post("/api/v1/results/", "{}", kJson);
  EXPECT_EQ(moved->status, 307);
  EXPECT_EQ(moved->get_header_value("Location"), orchestrator_.url() + "/api/v1/results");
}

TEST_F(HttpApiTest, TakesYamlInThreeForms) {
  const std::string yaml = "spec: {taskType: echo, resources: {estimatedLoad: 2}}";
  EXPECT_EQ(Post("/api/v1/tasks", yaml, "text/plain"), 200);
  EXPECT_EQ(Post("/api/v1/tasks", DumpJson(Json(yaml)), kJson), 200);
  EXPECT_EQ(Post("/api/v1/tasks", DumpJson({{"yaml", yaml}}), kJson), 200);
  const Json answer = Body();
  EXPECT_EQ(answer["ok"], true);
  EXPECT_EQ(answer["count"], 1);
  const Json& task = answer["tasks"][0];
  EXPECT_EQ(task["status"], "PENDING");
  EXPECT_EQ(task["load"], 2);
  EXPECT_EQ(task["max_attempts"], 3);
  EXPECT_EQ(task["assigned_worker"], nullptr);
  EXPECT_EQ(task["waiting_on"], Json::array());

  EXPECT_EQ(Get("/api/v1/tasks"), 200);
  EXPECT_EQ(Body().size(), 3u);
  EXPECT_EQ(Get("/api/v1/tasks/" + task["task_id"].get<std::string>()), 200);
  EXPECT_EQ(Body()["raw_yaml"], yaml);
  EXPECT_EQ(Get("/api/v1/tasks/unknown"), 404);
}

// As `curl --data-binary @flow.yaml` sends it, which is beyond what the library takes of a form.
TEST_F(HttpApiTest, TakesLongYamlOfAnyOtherType) {
  const std::string yaml =
      "spec: {taskType: echo, text: \"a=1&b=%20+" + std::string(20 << 10, 'x') + "\"}";
  for (const char* type :
       {"application/x-www-form-urlencoded", "application/x-yaml", "text/plain; charset=utf-8"}) {
    ASSERT_EQ(Post("/api/v1/tasks", yaml, type), 200) << type << ": " << body_;
    EXPECT_EQ(Get("/api/v1/tasks/" + Body()["tasks"][0]["task_id"].get<std::string>()), 200);
    EXPECT_EQ(Body()["raw_yaml"], yaml);
  }
  const httplib::MultipartFormData part = {"flow", yaml, "flow.yaml", ""};
  EXPECT_EQ(http_.Post("/api/v1/tasks", httplib::MultipartFormDataItems{part})->status, 200);
  const auto two = http_.Post("/api/v1/tasks", httplib::MultipartFormDataItems{part, part});
  EXPECT_EQ(two->status, 400);
  EXPECT_THAT(two->body, HasSubstr("got 2 parts"));
  EXPECT_EQ(Post("/api/v1/tasks", yaml, "multipart/form-data"), 400) << "without a boundary";
  EXPECT_EQ(Get("/api/v1/tasks"), 200);
  EXPECT_EQ(Body().size(), 4u);
}

TEST_F(HttpApiTest, RefusesBadSubmissionsWhole) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"", "text/plain"},
      {"  \n", "text/plain"},
      {"\xff\xfe", "text/plain"},
      {"{", kJson},
      {"{\"yaml\": 3}", kJson},
      {"[]", "application/x+json"},
      {"a: [", "text/plain"},
      {"just text", "text/plain"},
      {"spec: 3", "text/plain"},
      {"spec: {stages: [{name: a}, {name: a}]}", "text/plain"},
      {"spec: {dependsOn: [nobody]}", "text/plain"},
      {"spec: {graph: {nodes: [{name: a}, {name: b, dependsOn: [b]}]}}", "text/plain"}};
  for (const auto& [body, type] : bad) {
    EXPECT_EQ(Post("/api/v1/tasks", body, type), 400) << body;
    EXPECT_TRUE(Body()["detail"].is_string()) << body_;
  }
  EXPECT_EQ(Get("/api/v1/tasks"), 200);
  EXPECT_EQ(Body().size(), 0u);
}

TEST_F(HttpApiTest, StoresResultsWithoutTouchingTheTask) {
  const std::string id = orchestrator_.Submit("spec: {taskType: echo}").at(0);
  const Json body = {{"task_id", id}, {"result", {{"text", "ü"}}}, {"worker_id", "w"}};
  EXPECT_EQ(Post("/api/v1/results", DumpJson(body), kJson), 200);
  EXPECT_EQ(Body()["path"], (orchestrator_.results() / id / "responses.json").string());
  EXPECT_EQ(Get("/api/v1/results/" + id), 200);
  const Json stored = Body();
  EXPECT_EQ(stored.size(), 5u);
  EXPECT_EQ(stored["result"]["text"], "ü");
  EXPECT_EQ(stored["worker_id"], "w");
  EXPECT_EQ(stored["metadata"], Json::object());
  EXPECT_NE(ParseTimestamp(stored["received_at"].get<std::string>()), absl::InfinitePast());
  EXPECT_TRUE(std::filesystem::exists(orchestrator_.results() / id / "manifest.json"));
  EXPECT_EQ(orchestrator_.Record(id)["status"], "PENDING");
  EXPECT_EQ(Get("/api/v1/results/unknown"), 404);

  EXPECT_EQ(
      Post("/api/v1/results", R"({"task_id":"../x","result":{},"received_at":"then"})", kJson),
      200);
  EXPECT_TRUE(std::filesystem::exists(orchestrator_.results() / "___x" / "responses.json"));
}

TEST_F(HttpApiTest, RefusesBadResults) {
  EXPECT_EQ(Post("/api/v1/results", R"({"task_id":"","result":{}})", kJson), 400);
  for (const char* wrong :
       {"{", "[]", "{}", R"({"task_id":3,"result":{}})", R"({"task_id":"t"})",
        R"({"task_id":"t","result":[]})", R"({"task_id":"t","result":{},"worker_id":3})",
        R"({"task_id":"t","result":{},"metadata":[]})",
        R"({"task_id":"t","result":{},"received_at":null})"}) {
    EXPECT_EQ(Post("/api/v1/results", wrong, kJson), 422) << wrong;
    EXPECT_TRUE(Body()["detail"].is_string());
  }
  EXPECT_EQ(Post("/api/v1/results", R"({"task_id":"t","result":{}})", "text/plain"), 422);
  const std::string endless(300, 'x');
  EXPECT_EQ(
      Post("/api/v1/results", DumpJson({{"task_id", endless}, {"result", Json::object()}}), kJson),
      500);
}

TEST_F(HttpApiTest, KeepsUploadsAndServesThemInParts) {
  std::string content(5 << 20, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 251);
  const auto upload = [&](const std::string& field, const std::string& name) {
    const auto answer =
        http_.Post("/api/v1/results/t/files",
                   httplib::MultipartFormDataItems{{field, content, name, "application/zip"}});
    body_ = answer->body;
    return answer->status;
  };
  EXPECT_EQ(upload("file", "m.tar.gz"), 200);
  EXPECT_EQ(Body()["path"], (orchestrator_.results() / "t" / "artifacts" / "m.tar.gz").string());
  EXPECT_EQ(upload("file", "../m"), 400);
  EXPECT_EQ(upload("file", ".."), 400);
  EXPECT_EQ(upload("other", "m"), 422);
  EXPECT_EQ(Post("/api/v1/results/t/files", "x", "text/plain"), 422);

  const std::string path = "/api/v1/results/t/files/m.tar.gz";
  const auto whole = http_.Get(path);
  EXPECT_EQ(whole->status, 200);
  EXPECT_EQ(whole->body, content);
  const std::string tag = whole->get_header_value("ETag");
  EXPECT_FALSE(tag.empty());
  EXPECT_THAT(whole->get_header_value("Last-Modified"), HasSubstr("GMT"));

  const auto part = http_.Get(path, {{"Range", "bytes=100000-299999"}});
  EXPECT_EQ(part->status, 206);
  EXPECT_EQ(part->body, content.substr(100000, 200000));
  EXPECT_EQ(part->get_header_value("Content-Range"), "bytes 100000-299999/5242880");
  EXPECT_EQ(http_.Get(path, {{"Range", "bytes=-10"}})->body, content.substr(content.size() - 10));
  EXPECT_EQ(http_.Get(path, {{"Range", "bytes=9999999-"}})->status, 416);
  EXPECT_EQ(Get(path, {{"Range", "bytes=5-"}, {"If-Range", "\"old\""}}), 200);
  EXPECT_EQ(Get(path, {{"Range", "bytes=5-"}, {"If-Range", tag}}), 206);
  EXPECT_EQ(Get(path, {{"If-None-Match", tag}}), 304);
  const auto head = http_.Head(path);
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->get_header_value("Content-Length"), "5242880");

  content = "newer";
  EXPECT_EQ(upload("file", "m.tar.gz"), 200);
  EXPECT_EQ(http_.Get(path)->body, "newer");
  EXPECT_EQ(Get("/api/v1/results/t/files/unknown"), 404);
  EXPECT_EQ(Get("/api/v1/results/t/files/.."), 400);
  ASSERT_TRUE(WriteFileAtomically(orchestrator_.results() / "t" / "beside.txt", "").ok());
  EXPECT_EQ(Get("/api/v1/results/t/files/beside.txt"),
            200);  // also outside of artifacts/, and empty
}

TEST_F(HttpApiTest, ShowsWorkersAndSwitchesThem) {
  EXPECT_EQ(Get("/workers"), 200);
  EXPECT_EQ(Body(), Json::array());
  ScriptedWorker worker(redis_, "w");
  worker.Register({{"cpu", {{"logical_cores", 4}}}});
  EXPECT_EQ(Get("/workers/w"), 200);
  const Json shown = Body();
  EXPECT_EQ(shown["status"], "IDLE");
  EXPECT_EQ(shown["pid"], 7);
  EXPECT_EQ(shown["cost_per_hour"], 1.5);
  EXPECT_EQ(shown["tags"], Json({"lab"}));
  EXPECT_EQ(shown["hardware"]["cpu"]["logical_cores"], 4);
  EXPECT_EQ(shown["cached_models"], Json::array());
  EXPECT_EQ(shown["stale"], false);
  EXPECT_EQ(Get("/workers/nobody"), 404);

  EXPECT_EQ(Post("/workers/w/elastic", R"({"enabled":false})", kJson), 200);
  EXPECT_EQ(Body()["elastic_disabled"], Json({"w"}));
  EXPECT_EQ(Post("/workers/nobody/elastic", R"({"enabled":false})", kJson), 404);
  EXPECT_EQ(Post("/workers/w/elastic", R"({"enabled":"no"})", kJson), 422);
  EXPECT_EQ(Post("/workers/w/elastic", "{", kJson), 422);
  TestOrchestrator fixed(redis_, [](Config& config) { config.elastic = false; });
  EXPECT_EQ(fixed.Http().Post("/workers/w/elastic", R"({"enabled":true})", kJson)->status, 400);

  EXPECT_EQ(Get("/metrics"), 200);
  const Json metrics = Body();
  EXPECT_EQ(metrics["active_workers_count"], 1);
  EXPECT_EQ(metrics["elastic_disabled_workers"], Json({"w"}));
  EXPECT_EQ(metrics["counters"]["workers_registered"], 1);
}

TEST_F(HttpApiTest, ChecksTheToken) {
  TestOrchestrator guarded(redis_, [](Config& config) { config.token = "right"; });
  httplib::Client http(guarded.url());
  EXPECT_EQ(http.Get("/healthz")->status, 200);
  EXPECT_EQ(http.Get("/nowhere")->status, 404);
  EXPECT_EQ(http.Post("/api/v1/results/", "", kJson)->status, 307);
  EXPECT_EQ(http.Post("/api/v1/results", "{", kJson)->status, 422);
  for (const char* path : {"/metrics", "/workers", "/workers/w", "/api/v1/tasks", "/api/v1/tasks/t",
                           "/api/v1/results/t", "/api/v1/results/t/files/f"}) {
    EXPECT_EQ(http.Get(path)->status, 401) << path;
    EXPECT_EQ(http.Get(path, {{"Authorization", "bearer right"}})->status, 401) << path;
    EXPECT_EQ(http.Get(path, {{"Authorization", "Bearer wrong"}})->status, 403) << path;
    const int status = http.Get(path, {{"Authorization", "Bearer right"}})->status;
    EXPECT_TRUE(status == 200 || status == 404) << path;
  }
  EXPECT_EQ(http.Post("/api/v1/tasks", "spec: {}", "text/plain")->status, 401);
  EXPECT_EQ(http.Post("/api/v1/results", "{}", kJson)->status, 401);
  EXPECT_EQ(http.Post("/workers/w/elastic", "{}", kJson)->status, 401);
  const httplib::MultipartFormDataItems file = {{"file", std::string(1 << 20, 'x'), "f", ""}};
  http.set_keep_alive(true);
  EXPECT_EQ(http.Post("/api/v1/results/t/files", file)->status, 401);
  // The refused body was read, so the connection goes on to work.
  http.set_default_headers({{"Authorization", "Bearer right"}});
  EXPECT_EQ(http.Post("/api/v1/results/t/files", file)->status, 200);
}

TEST_F(HttpApiTest, ASecondServerOnThePortIsRefused) {
  const int port = std::stoi(orchestrator_.url().substr(orchestrator_.url().rfind(':') + 1));
  Config config;
  config.redis = redis::ParseRedisUrl(redis_.url()).value();
  TempDir dir;
  config.results_dir = dir.path();
  config.listen.host = "127.0.0.1";
  config.listen.port = port;
  Orchestrator second(std::move(config), Clock::Real());
  HttpApi http(second);
  EXPECT_THAT(Message(http.Start()), HasSubstr("cannot listen on 127.0.0.1:"));
}

}  // namespace
}  // namespace flowmesh::orchestrator
