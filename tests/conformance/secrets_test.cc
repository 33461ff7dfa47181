// Promise P19: secrets never reach a log, a metric, an event or a result. Canaries stand wherever a
// secret may; tasks go well and badly, Redis refuses and goes away; then everything that can be
// seen is searched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "clients/cpp/sidecar_client.h"
#include "common/endpoint.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "tests/conformance/http_get.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// In every secret; unlike anything else.
constexpr char kCanary[] = "canary7f3a";

std::string Canary(const std::string& where) { return absl::StrCat(kCanary, "-", where); }

class Promises : public ::testing::Test {
 protected:
  // An unfriendly receiver: it says back all that it was told.
  Promises()
      : receiver_([](const httplib::Request& request, httplib::Response& reply) {
          if (request.path != "/refuse") return;
          reply.status = 401;
          std::string text = "who are you? ";
          for (const auto& [name, value] : request.headers) absl::StrAppend(&text, value, " ");
          reply.set_content(text, "text/plain");
        }),
        executor_metrics_(absl::StrCat("127.0.0.1:", FreeLoopbackPort().value())) {
    std::map<std::string, std::string> both;
    for (const char* name : {"HF_TOKEN", "UTU_LLM_API_KEY", "SERPER_API_KEY", "JINA_API_KEY"}) {
      both[name] = Canary(name);
    }
    both["DB_URL"] = "postgresql://user:" + Canary("db") + "@127.0.0.1/x";
    LineOptions options{.sidecar_env = both,
                        .executor_env = both,
                        .redis_setup = {"ACL", "SETUSER", "worker", "on", ">" + Canary("redis"),
                                        "~*", "&*", "+@all"},
                        .redis_login = absl::StrCat("worker:", Canary("redis"), "@")};
    options.sidecar_env["ORCHESTRATOR_TOKEN"] = Canary("token");
    options.sidecar_env["ORCHESTRATOR_BASE_URL"] = receiver_.url();
    options.sidecar_env["DELIVERY_TIMEOUT_SEC"] = "0";
    options.executor_env["EXECUTOR_METRICS_LISTEN"] = executor_metrics_;
    options.executor_env["EXECUTOR_RANK_BIN"] =
        absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"), "/../tests/scripted_rank");
    line_ = std::make_unique<Line>(std::move(options));
  }

  // Where a result goes, with a secret in each place that has room for one.
  Json Destination(const std::string& url) {
    return {{"type", "http"},
            {"url", absl::StrReplaceAll(url, {{"://", "://user:" + Canary("url") + "@"}})},
            {"headers",
             {{"Authorization", "Bearer " + Canary("bearer")}, {"X-Api-Key", Canary("key")}}}};
  }

  // Runs a task to its end; its type.
  std::string Run(Json spec, const Json& destination, const Json& extra = Json::object()) {
    spec["output"] = {{"destination", destination}};
    ids_.push_back(line_->Dispatch(spec, extra));
    const auto end = line_->events().WaitForTerminal(ids_.back());
    EXPECT_TRUE(end) << DumpJson(spec);
    return end ? (*end)["type"] : "";
  }

  // `where` names what `text` is.
  static void ExpectClean(const std::string& where, const std::string& text) {
    const size_t at = text.find(kCanary);
    EXPECT_EQ(at, std::string::npos)
        << where << " holds a secret: ..." << text.substr(at < 200 ? 0 : at - 200, 300);
  }

  // An echo gives back the spec as it came (TASKS.md 3.1): nothing that its owner did not say.
  static std::string WithoutEcho(const std::string& responses) {
    absl::StatusOr<Json> result = ParseJson(responses);
    if (!result.ok() || !result->is_object()) return responses;
    result->erase("echo");
    return DumpJson(*result);
  }

  void SearchFiles() {
    int files = 0;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(line_->dir())) {
      const fs::path& path = entry.path();
      if (!entry.is_regular_file()) continue;
      ++files;
      if (absl::StartsWith(path.filename().string(), "journal.db")) {
        // It holds the documents that are to run again; nobody else can open it.
        EXPECT_EQ(entry.status().permissions(), fs::perms::owner_read | fs::perms::owner_write);
        EXPECT_EQ(fs::status(path.parent_path()).permissions(), fs::perms::owner_all);
        continue;
      }
      // What such a rank says of its task stays in the task's own folder.
      if (talkative_.count(path) > 0) continue;
      std::string text = ReadFile(path).value();
      if (path.filename() == "responses.json") text = WithoutEcho(text);
      ExpectClean(path, text);
    }
    EXPECT_GT(files, 15);
  }

  void SearchWhatIsTold() {
    ExpectClean("the sidecar's metrics", HttpGet(line_->metrics_url() + "/metrics").body);
    ExpectClean("the executor's metrics", HttpGet("http://" + executor_metrics_ + "/metrics").body);
    ExpectClean("the health tree", HttpGet(line_->metrics_url() + "/readyz").body);
    for (const Json& event : line_->events().All()) ExpectClean("an event", DumpJson(event));
    client::SidecarClient client(line_->sidecar_target());
    for (const std::string& id : ids_) {
      const auto record = client.Watch(id, [](const v1::TaskUpdate& update) {
        ExpectClean("an update over gRPC", update.event().ShortDebugString());
      });
      ASSERT_TRUE(record.ok()) << record.status();
      v1::TaskRecord shown = *record;
      shown.set_result_json(WithoutEcho(shown.result_json()));
      ExpectClean("a record over gRPC", shown.ShortDebugString());
    }
    ExpectClean("the list of tasks", client.List()->ShortDebugString());
    ExpectClean("the description of the workers", client.Worker()->ShortDebugString());
    ExpectClean("the worker's hash", DumpJson(line_->redis().Command({"HGETALL", "worker:w"})));
  }

  TestHttpServer receiver_;
  const std::string executor_metrics_;
  std::unique_ptr<Line> line_;
  std::vector<std::string> ids_;
  std::set<fs::path> talkative_;  // logs of ranks that quote their task
};

TEST_F(Promises, P19_SecretsStayInside) {
  const Json echo = {{"taskType", "echo"}};
  EXPECT_EQ(Run(echo, Destination(receiver_.url("/results"))), "TASK_SUCCEEDED");
  ASSERT_EQ(receiver_.requests().size(), 1u);
  EXPECT_THAT(receiver_.requests()[0].get_header_value("Authorization"), HasSubstr(kCanary))
      << "secrets do reach their destination";
  Run(echo, {{"type", "http"}, {"url", receiver_.url("/refuse")}});  // the orchestrator's token
  EXPECT_THAT(receiver_.requests().back().get_header_value("Authorization"), HasSubstr(kCanary));

  const std::string nobody =
      absl::StrCat("http://127.0.0.1:", FreeLoopbackPort().value(), "/x?token=", Canary("query"));
  std::vector<Json> bad = {Destination(receiver_.url("/refuse")), Destination(nobody),
                           Destination("ftp://127.0.0.1/x"), Destination("http://:port/x")};
  bad.push_back(
      {{"type", "http"}, {"url", receiver_.url()}, {"headers", {{"X", {Canary("list")}}}}});
  bad.push_back({{"type", "http"}, {"url", receiver_.url()}, {"headers", Canary("text")}});
  bad.push_back({{"type", "http"}, {"url", receiver_.url()}, {"headers", {{"X\n", Canary("x")}}}});
  bad.push_back("http://user:" + Canary("text") + "@host/x");
  for (const Json& destination : bad) {
    EXPECT_EQ(Run(echo, destination), "TASK_FAILED") << destination;
  }
  const Json good = Destination(receiver_.url("/results"));
  EXPECT_EQ(Run({{"taskType", "inference"}}, good), "TASK_SUCCEEDED");
  EXPECT_EQ(Run({{"taskType", "inference"}, {"script", {"print bye", "crash 6"}}}, good),
            "TASK_FAILED");
  // A rank that says what it was told.
  for (const char* secret : {"bearer", "key", "url", "token"}) {
    const Json script = {"fail to log in with " + Canary(secret)};
    EXPECT_EQ(Run({{"taskType", "inference"}, {"script", script}}, good), "TASK_FAILED");
    talkative_.insert(line_->results() / ids_.back() / "logs/task.log");
  }
  EXPECT_EQ(Run({{"taskType", "nonsense"}}, good), "TASK_FAILED");
  EXPECT_EQ(Run({{"taskType", "inference"}}, good,
                {{"merged_children",
                  {{{"task_id", "c1"}, {"spec", {{"output", {{"destination", bad.front()}}}}}}}}}),
            "TASK_FAILED");
  // An envelope that is cut in the middle of a secret.
  const std::string whole = DumpJson(
      Line::Envelope("t1", {{"taskType", "echo"}, {"output", {{"destination", good}}}}, "w"));
  const std::string cut = absl::StrCat(R"({"assigned_worker":"w",)",
                                       whole.substr(1, whole.find(kCanary) + sizeof(kCanary)));
  line_->redis().Command({"PUBLISH", "tasks", cut});
  EXPECT_TRUE(line_->sidecar().WaitForOutput("is dropped: not JSON"));
  SearchWhatIsTold();

  // Redis has another password, and then it is gone.
  line_->redis().Command({"ACL", "SETUSER", "worker", "resetpass", ">other"});
  line_->redis().Command({"CLIENT", "KILL", "USER", "worker"});
  EXPECT_TRUE(line_->sidecar().WaitForOutput("WRONGPASS")) << line_->sidecar().Output();
  line_->server().Kill();
  EXPECT_TRUE(line_->sidecar().WaitForOutput("refused"));
  ExpectClean("the health tree", HttpGet(line_->metrics_url() + "/readyz").body);
  line_->StopSidecar();
  SearchFiles();
}

}  // namespace
}  // namespace flowmesh::testing
