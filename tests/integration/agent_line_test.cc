// Agents through the whole line: a task comes over Redis, the rank talks with a scripted endpoint.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/model/golden_encoder.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

namespace fs = std::filesystem;
using agent::Calls;
using agent::Says;
using agent::ScriptedEndpoint;
using agent::Status;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKey[] = "canary-key-of-the-model";

LineOptions Options(const ScriptedEndpoint& endpoint) {
  return {.executor_env = {{"UTU_LLM_MODEL", "scripted"},
                           {"UTU_LLM_BASE_URL", endpoint.base_url()},
                           {"UTU_LLM_API_KEY", kKey},
                           {"no_proxy", "127.0.0.1"}}};
}

// Everything that the line wrote, results, states and logs.
std::string AllFiles(const fs::path& dir) {
  std::string all;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (entry.is_regular_file()) all += ReadFile(entry.path()).value_or("");
  }
  return all;
}

TEST(AgentLineTest, ATaskIsAnswered) {
  ScriptedEndpoint endpoint({Says("Thimphu.")});
  Line line(Options(endpoint));
  const std::string id =
      line.Dispatch({{"taskType", "agent"},
                     {"configName", "default"},
                     {"data", {{"type", "static"}, {"task", "Capital of Bhutan?"}}},
                     {"output", {{"artifacts", {"responses.json", "agent_output.txt"}}}}});
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  ASSERT_EQ((*done)["type"], "TASK_SUCCEEDED") << DumpJson(*done);
  const Json result = line.ResultFile(id);
  EXPECT_EQ(result["items"][0]["output"], "Thimphu.");
  EXPECT_EQ(result["metadata"]["execution_log"][1], "turn 1: 12 tokens");
  EXPECT_EQ(ReadFile(line.results() / id / "agent_output.txt").value(), "Thimphu.");
  EXPECT_TRUE(fs::exists(line.results() / id / "utu_logs/task_1.jsonl"));
  for (const Json& entry : line.ResultFile(id, "manifest.json")["entries"]) {
    EXPECT_EQ(entry["status"], "present") << DumpJson(entry);
  }
  EXPECT_EQ(endpoint.request(0).get_header_value("Authorization"), std::string("Bearer ") + kKey);
}

TEST(AgentLineTest, AFailureLeavesItsRecordAndTheWorkerServesOn) {
  ScriptedEndpoint endpoint([](const Json& body) {
    const std::string task = body["messages"].back()["content"];
    return task == "good" ? Says("fine") : Status(401, std::string("bad key ") + kKey);
  });
  Line line(Options(endpoint));
  const std::string failed = line.Dispatch({{"taskType", "agent"}, {"task", "bad"}});
  const auto first = line.events().WaitForTerminal(failed);
  ASSERT_TRUE(first);
  EXPECT_EQ((*first)["type"], "TASK_FAILED");
  EXPECT_THAT((*first)["error"].get<std::string>(), HasSubstr("HTTP 401: bad key ***"));
  const Json record = line.ResultFile(failed);
  EXPECT_EQ(record["ok"], false);
  EXPECT_EQ(record["items"], Json::array());
  EXPECT_THAT(record["metadata"]["error"].get<std::string>(), HasSubstr("HTTP 401"));

  const std::string several = line.Dispatch(
      {{"taskType", "agent"}, {"data", {{"type", "list"}, {"items", {"good", "bad", "good"}}}}});
  const auto second = line.events().WaitForTerminal(several);
  ASSERT_TRUE(second);
  EXPECT_EQ((*second)["type"], "TASK_SUCCEEDED") << DumpJson(*second);
  const Json result = line.ResultFile(several);
  EXPECT_EQ(result["metadata"]["batch_summary"],
            (Json{{"total_tasks", 3}, {"completed", 2}, {"failed", 1}}));
  EXPECT_EQ(result["items"][1]["finish_reason"], "failed");
  EXPECT_EQ(line.ResultFile(several, "batch_summary.json")["failed"], 1);

  const std::string unknown =
      line.Dispatch({{"taskType", "agent"}, {"task", "x"}, {"configName", "orchestra"}});
  const auto third = line.events().WaitForTerminal(unknown);
  ASSERT_TRUE(third);
  EXPECT_THAT((*third)["error"].get<std::string>(),
              HasSubstr("unknown agent configuration 'orchestra'; known are: base, default"));
  EXPECT_THAT(AllFiles(line.dir()), Not(HasSubstr(kKey)));
}

// What a rag task has brought into a store, an agent's tool finds.
TEST(AgentLineTest, AStoreIsSearched) {
  const TempDir dir;
  model::MakeGoldenEncoder(dir / "encoder");
  ASSERT_TRUE(WriteFileAtomically(dir / "good.md", "# Dogs\ngood dog\n# Answers\nkind\n").ok());
  ASSERT_TRUE(
      WriteFileAtomically(dir / "keeper.yaml",
                          absl::StrCat("tools: [{retrieval: {path: '", (dir / "store.db").string(),
                                       "', model: '", (dir / "encoder").string(), "', top_k: 1}}]"))
          .ok());
  ScriptedEndpoint endpoint(
      {Calls("search_passages", R"({"query": "# Dogs good dog"})"), Says("A good one.")});
  LineOptions options = Options(endpoint);
  options.executor_env["AGENT_CONFIG_DIR"] = dir.path();
  Line line(options);
  const Json agent = {{"taskType", "agent"}, {"configName", "keeper"}, {"task", "Which dog?"}};
  const auto early = line.events().WaitForTerminal(line.Dispatch(agent));
  ASSERT_TRUE(early);
  EXPECT_THAT((*early)["error"].get<std::string>(),
              HasSubstr("tools[0].retrieval.path: no store at"));
  const std::string filled = line.Dispatch({{"taskType", "rag"},
                                            {"store",
                                             {{"type", "embedded"},
                                              {"path", (dir / "store.db").string()},
                                              {"sources", {(dir / "good.md").string()}},
                                              {"chunking", {{"by", "headings"}}}}},
                                            {"embedding", {{"model", (dir / "encoder").string()}}},
                                            {"query", "kind"}});
  const auto first = line.events().WaitForTerminal(filled);
  ASSERT_TRUE(first);
  ASSERT_EQ((*first)["type"], "TASK_SUCCEEDED") << DumpJson(*first);
  const std::string id = line.Dispatch(agent);
  const auto done = line.events().WaitForTerminal(id);
  ASSERT_TRUE(done);
  ASSERT_EQ((*done)["type"], "TASK_SUCCEEDED") << DumpJson(*done);
  EXPECT_EQ(line.ResultFile(id)["items"][0]["output"], "A good one.");
  EXPECT_THAT(endpoint.body(1)["messages"].back()["content"].get<std::string>(),
              HasSubstr("heading: Dogs; score: 1.000\n# Dogs\n\ngood dog"));
}

}  // namespace
}  // namespace flowmesh::testing
