#include "executors/tasks/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/yaml.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/tasks/test_task.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using agent::Calls;
using agent::Reply;
using agent::Says;
using agent::ScriptedEndpoint;
using agent::Status;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class AgentTest : public TaskTest {
 protected:
  absl::StatusOr<TaskOutcome> Run(const EnvLookup& env, const std::string& spec) {
    spec_ = ParseYaml(spec).value();
    return AgentRunner(env).Run(Context());
  }
  std::string Error(const EnvLookup& env, const std::string& spec) {
    const auto outcome = Run(env, spec);
    EXPECT_FALSE(outcome.ok());
    return Message(outcome.status());
  }
  std::string File(const std::string& name) { return ReadFile(dir_ / "T1" / name).value_or(""); }
  bool Exists(const std::string& name) { return fs::exists(dir_ / "T1" / name); }
  // A configuration of the user's; the environment with its folder.
  EnvLookup Configured(const ScriptedEndpoint& endpoint, const std::string& yaml,
                       std::map<std::string, std::string> env = {}) {
    fs::create_directories(dir_ / "configurations");
    std::ofstream(dir_ / "configurations/own.yaml") << yaml;
    env["AGENT_CONFIG_DIR"] = dir_ / "configurations";
    return endpoint.Env(std::move(env));
  }
};

TEST_F(AgentTest, OneTask) {
  ScriptedEndpoint endpoint({Says("Thimphu.")});
  const auto outcome = Run(endpoint.Env(), "data: {type: static, task: 'Capital of Bhutan?'}");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  Json result = outcome->result;
  EXPECT_GT(result["usage"]["execution_time_sec"].get<double>(), 0);
  result["usage"].erase("execution_time_sec");
  EXPECT_EQ(
      result,
      (Json{{"ok", true},
            {"model", "default"},
            {"items", {{{"index", 0}, {"output", "Thimphu."}, {"finish_reason", "completed"}}}},
            {"usage",
             {{"num_requests", 1},
              {"agent_config", "default"},
              {"model_calls", 1},
              {"prompt_tokens", 30},
              {"completion_tokens", 12},
              {"total_tokens", 42}}},
            {"metadata",
             {{"task", "Capital of Bhutan?"},
              {"execution_log", {"loaded configuration default", "turn 1: 12 tokens"}}}}}));
  EXPECT_EQ(File("agent_output.txt"), "Thimphu.");
  const std::vector<std::string> said =
      absl::StrSplit(File("utu_logs/task_1.jsonl"), '\n', absl::SkipEmpty());
  ASSERT_THAT(said, SizeIs(3));
  EXPECT_EQ(ParseJson(said[0]).value()["role"], "system");
  EXPECT_EQ(ParseJson(said[1]).value()["content"], "Capital of Bhutan?");
  EXPECT_EQ(ParseJson(said[2]).value()["content"], "Thimphu.");
  EXPECT_FALSE(Exists("workspace")) << "nothing was put there";
  EXPECT_TRUE(failure_.is_null());
  ASSERT_THAT(progress_, Not(IsEmpty()));
  EXPECT_EQ(progress_[0].stage, "turn 1");
  EXPECT_EQ(progress_[0].total, 1u);
}

TEST_F(AgentTest, ATaskMayStandBesideData) {
  ScriptedEndpoint endpoint({Says("yes")});
  EXPECT_TRUE(Run(endpoint.Env(), "{task: 'Well?', config_name: base}").ok());
  EXPECT_EQ(endpoint.body(0)["messages"].size(), 1u) << "base has no instructions";
  EXPECT_TRUE(Run(endpoint.Env(), "{data: {type: list, items: ['Well?']}}").ok());
}

TEST_F(AgentTest, AFailedItemDoesNotFailTheOthers) {
  ScriptedEndpoint endpoint([](const Json& body) {
    const std::string task = body["messages"].back()["content"];
    return task == "bad" ? Status(400, "no") : Says("answer to " + task);
  });
  const auto outcome = Run(endpoint.Env(), "data: {type: list, items: [one, bad, three]}");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  const Json& items = outcome->result["items"];
  EXPECT_EQ(items[0],
            (Json{{"index", 0}, {"output", "answer to one"}, {"finish_reason", "completed"}}));
  EXPECT_EQ(items[1]["output"], "");
  EXPECT_EQ(items[1]["finish_reason"], "failed");
  EXPECT_THAT(items[1]["error"].get<std::string>(), HasSubstr("HTTP 400"));
  EXPECT_EQ(items[2]["output"], "answer to three");
  const Json counts = {{"total_tasks", 3}, {"completed", 2}, {"failed", 1}};
  EXPECT_EQ(outcome->result["metadata"]["batch_summary"], counts);
  EXPECT_EQ(outcome->result["metadata"]["tasks_count"], 3);
  EXPECT_EQ(outcome->result["usage"]["num_requests"], 3);
  EXPECT_THAT(outcome->result["metadata"]["execution_log"].get<std::vector<std::string>>(),
              AllOf(Contains("task 1: turn 1: 12 tokens"),
                    Contains(HasSubstr("task 2: failed: chat endpoint"))));
  EXPECT_EQ(File("batch_logs/task_1_output.txt"), "answer to one");
  EXPECT_THAT(File("batch_logs/task_2_output.txt"), HasSubstr("HTTP 400"));
  const Json summary = ParseJson(File("batch_summary.json")).value();
  EXPECT_EQ(summary["failed"], 1);
  EXPECT_EQ(summary["tasks"][2]["output_file"], "batch_logs/task_3_output.txt");
  EXPECT_TRUE(Exists("utu_logs/task_3.jsonl"));
  EXPECT_FALSE(Exists("agent_output.txt"));
}

TEST_F(AgentTest, AFailedTaskLeavesItsRecord) {
  ScriptedEndpoint endpoint({Status(401, "no such key")});
  const std::string error = Error(endpoint.Env(), "{task: 'Well?', configName: base}");
  EXPECT_THAT(error, HasSubstr("HTTP 401: no such key"));
  EXPECT_EQ(failure_["ok"], false);
  EXPECT_EQ(failure_["model"], "base");
  EXPECT_EQ(failure_["items"], Json::array());
  EXPECT_EQ(failure_["metadata"]["error"], error);
  EXPECT_EQ(failure_["metadata"]["task"], "Well?");
  EXPECT_EQ(endpoint.count(), 1u) << "a refused key is not tried again";
}

TEST_F(AgentTest, BadSpecsNameTheirField) {
  const ScriptedEndpoint endpoint({Says("never")});
  const std::map<std::string, std::string> cases = {
      {"{}", "spec.data: required, or spec.task"},
      {"{task: 3}", "spec.task: expected a string, got 3"},
      {"{task: ' '}", "spec.task: expected a task, got an empty text"},
      {"{data: {type: static}}", "spec.data.task: expected a string, got nothing"},
      {"{data: {type: table}}",
       "spec.data.type: expected list, dataset, graph_template or static, got \"table\""},
      {"{task: a, agent: {timeout: 0}}",
       "spec.agent.timeout: expected a number of seconds above 0, got 0"},
      {"{task: a, agent: {timeoutSec: soon}}",
       "spec.agent.timeoutSec: expected a number of seconds above 0, got \"soon\""},
      {"{task: a, agent: 3}", "spec.agent: expected a map, got 3"},
      {"{task: a, configName: orchestra}",
       "spec.configName: unknown agent configuration 'orchestra'; known are: base, default, "
       "examples/search_agent, simple_search, team"},
      {"{task: a, configName: simple_search}",
       "agent configuration 'simple_search' (built in): tools[0]: web_search needs the environment "
       "variable SERPER_API_KEY"}};
  for (const auto& [spec, expected] : cases) EXPECT_EQ(Error(endpoint.Env(), spec), expected);
  EXPECT_EQ(endpoint.count(), 0u);
  const auto none = [](std::string_view) { return std::nullopt; };
  EXPECT_THAT(Error(none, "{task: a}"), HasSubstr("UTU_LLM_MODEL and UTU_LLM_BASE_URL"));
  // Data are read before models and tools are made.
  std::ofstream(dir_ / "tasks.csv") << "text\nfirst\n";
  EXPECT_THAT(Error(none, absl::StrCat("{data: {type: dataset, url: '",
                                       (dir_ / "tasks.csv").string(), "', column: quest}}")),
              HasSubstr("spec.data.column: column 'quest' not found"));
  EXPECT_EQ(failure_["metadata"]["error"].get<std::string>().empty(), false);
}

TEST_F(AgentTest, IgnoredFieldsAreNamed) {
  ScriptedEndpoint endpoint({Says("yes")});
  ASSERT_TRUE(Run(endpoint.Env(), "{task: a, agent: {timeout: '30', depth: 2}}").ok());
  EXPECT_THAT(log_, Contains("ignored field spec.agent.depth"));
}

TEST_F(AgentTest, ToolsWorkInAFolderOfTheTask) {
  ScriptedEndpoint endpoint({Calls("write_file", R"({"path": "notes/a.txt", "content": "hi"})"),
                             Calls("read_file", R"({"path": "notes/a.txt"})"), Says("done")});
  const auto outcome = Run(Configured(endpoint, "tools: [files]"), "{task: a, configName: own}");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(File("workspace/notes/a.txt"), "hi");
  EXPECT_EQ(endpoint.body(2)["messages"].back()["content"], "hi");
  // The next attempt begins anew.
  ScriptedEndpoint again({Says("done")});
  ASSERT_TRUE(Run(again.Env(), "task: a").ok());
  EXPECT_FALSE(Exists("workspace"));
}

TEST_F(AgentTest, ATimeLimitIsTheItems) {
  ScriptedEndpoint endpoint({Calls("bash", R"({"script": "sleep 60"})"), Says("never")});
  const EnvLookup env = Configured(endpoint, "tools: [{bash: {allow_rlimits_only: true}}]");
  const std::string error = Error(env, "{task: a, configName: own, agent: {timeout: 0.5}}");
  EXPECT_EQ(error, "not over within 500ms (spec.agent.timeout)");
  EXPECT_EQ(failure_["metadata"]["error"], error);
}

// Of which every chat's time is over at once.
class LateModels : public AgentModels {
 public:
  void BeginRun() override {}
  absl::StatusOr<std::unique_ptr<agent::ChatModel>> MakeChat(const agent::ModelOverrides&,
                                                             const TaskContext&) override {
    return std::make_unique<LateChat>();
  }
  absl::StatusOr<retrieval::Embedder> MakeEmbedder(const std::string&,
                                                   const TaskContext&) override {
    return absl::UnimplementedError("none");
  }

 private:
  class LateChat : public agent::ChatModel {
   public:
    absl::StatusOr<agent::ChatReply> Chat(const agent::ChatRequest&) override {
      return absl::DeadlineExceededError("it said nothing for 5 minutes");
    }
  };
};

TEST_F(AgentTest, ATimeLimitOfTheModelIsNotTheItems) {
  const ScriptedEndpoint endpoint({Says("never")});
  const EnvLookup env = Configured(endpoint, "model: {local: x}");
  spec_ = {{"task", "a"}, {"configName", "own"}};
  const auto outcome = AgentRunner(env, std::make_shared<LateModels>()).Run(Context());
  EXPECT_EQ(Message(outcome.status()), "it said nothing for 5 minutes");
}

TEST_F(AgentTest, ACancelledTaskEndsInTheMiddleOfAStep) {
  ScriptedEndpoint endpoint({Calls("bash", R"({"script": "sleep 60"})"), Says("never")});
  spec_ = {{"task", "a"}, {"configName", "own"}};
  TaskContext context = Context();
  bool is_at_tool = false;
  context.on_progress = [&](const Progress& progress) { is_at_tool = progress.stage == "bash"; };
  context.is_stopped = [&] { return is_at_tool; };
  const auto outcome =
      AgentRunner(Configured(endpoint, "tools: [{bash: {allow_rlimits_only: true}}]")).Run(context);
  EXPECT_TRUE(absl::IsCancelled(outcome.status())) << outcome.status();
  EXPECT_TRUE(failure_.is_null());
  EXPECT_EQ(endpoint.count(), 1u);
}

// Keys go to their servers and nowhere else, not even when a model or a server says them back.
TEST_F(AgentTest, KeysAreSeenNowhere) {
  const std::string model_key = "canary-model-key", search_key = "canary-search-key";
  TestHttpServer search([&](const httplib::Request& request, httplib::Response& reply) {
    EXPECT_EQ(request.get_header_value("X-API-KEY"), search_key);
    reply.set_content(DumpJson({{"organic", {{{"title", "leak " + search_key}}}}}),
                      "application/json");
  });
  ScriptedEndpoint endpoint([&](const Json& body) {
    const std::string last = body["messages"].back()["content"];
    if (last == "fail") return Status(403, "refused " + model_key);
    if (body["messages"].back()["role"] == "tool") return Says("I know " + model_key);
    return Calls("web_search", R"({"query": "x"})");
  });
  const EnvLookup env =
      Configured(endpoint, absl::StrCat("tools: [{web_search: {base_url: '", search.url(), "'}}]"),
                 {{"UTU_LLM_API_KEY", model_key}, {"SERPER_API_KEY", search_key}});
  const auto outcome = Run(env, "{configName: own, data: {type: list, items: [look, fail]}}");
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(endpoint.request(0).get_header_value("Authorization"), "Bearer " + model_key);
  EXPECT_EQ(outcome->result["items"][0]["output"], "I know ***");
  std::string seen = DumpJson(outcome->result);
  for (const std::string& line : log_) seen += line;
  for (const auto& entry : fs::recursive_directory_iterator(dir_ / "T1")) {
    if (entry.is_regular_file()) seen += ReadFile(entry.path()).value();
  }
  EXPECT_THAT(seen, HasSubstr("leak ***"));
  for (const std::string& key : {model_key, search_key}) EXPECT_THAT(seen, Not(HasSubstr(key)));
}

TEST_F(AgentTest, ADataSetGivesTheTasks) {
  std::ofstream(dir_ / "tasks.csv") << "text\nfirst\nsecond\n";
  ScriptedEndpoint endpoint([](const Json& body) {
    return Says("to " + body["messages"].back()["content"].get<std::string>());
  });
  const auto outcome = Run(
      endpoint.Env(), absl::StrCat("{data: {type: dataset, url: '", (dir_ / "tasks.csv").string(),
                                   "'}, agent: {concurrency: 1}}"));
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->result["items"][1]["output"], "to second");
}

}  // namespace
}  // namespace flowmesh::tasks
