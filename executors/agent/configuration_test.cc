#include "executors/agent/configuration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/agent/assistant.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

class ConfigurationTest : public ::testing::Test {
 protected:
  ConfigurationTest() {
    env_["AGENT_CONFIG_DIR"] = dir_.path();
    env_["UTU_LLM_MODEL"] = "m";
    env_["UTU_LLM_BASE_URL"] = "http://127.0.0.1:1/v1";
  }
  EnvLookup Env() {
    return [this](std::string_view name) -> std::optional<std::string> {
      const auto it = env_.find(std::string(name));
      return it == env_.end() ? std::nullopt : std::optional(it->second);
    };
  }
  absl::StatusOr<AgentConfiguration> Load(const std::string& yaml,
                                          const std::string& name = "own") {
    const fs::path file = dir_ / (name + ".yaml");
    fs::create_directories(file.parent_path());
    std::ofstream(file) << yaml;
    return LoadConfiguration(name, Env());
  }
  // Of the configuration or of what it is put together from, without the part that says where.
  std::string Error(const std::string& yaml) {
    absl::Status status;
    if (const auto configuration = Load(yaml); configuration.ok()) {
      status = Assistant::Make(*configuration, {.env = Env()}, {}).status();
    } else {
      status = configuration.status();
    }
    const std::string where =
        absl::StrCat("agent configuration 'own' (", (dir_ / "own.yaml").string(), "): ");
    EXPECT_THAT(Message(status), HasSubstr(where)) << yaml;
    return Message(status).substr(std::min(where.size(), status.message().size()));
  }

  TempDir dir_;
  std::map<std::string, std::string> env_;
};

TEST_F(ConfigurationTest, ThoseThatComeWithTheProgramCanBeUsed) {
  env_["SERPER_API_KEY"] = "key";
  for (const auto& [name, yaml] : ShippedConfigurations()) {
    const auto configuration = LoadConfiguration(name, Env());
    ASSERT_TRUE(configuration.ok()) << configuration.status();
    EXPECT_EQ(configuration->source, "built in");
    const auto assistant = Assistant::Make(*configuration, {.env = Env()}, {});
    EXPECT_TRUE(assistant.ok()) << assistant.status();
  }
  EXPECT_THAT(LoadConfiguration("base", Env())->agent.tools, IsEmpty());
  EXPECT_THAT(LoadConfiguration("default", Env())->agent.tools, IsEmpty());
  EXPECT_EQ(LoadConfiguration("team", Env())->team->workers.size(), 2u);
}

TEST_F(ConfigurationTest, AllFields) {
  env_["TOKEN"] = "t0ken";
  const auto loaded = Load(R"(
description: d
instructions: do it
max_turns: 3
model: {type: responses, name: n, base_url: "http://x/v1", api_key_env: K, temperature: 0.5, max_tokens: 9}
tools: [files, {web_search: {results: 3}}, {bash: }]
mcp_servers:
  local: {command: server, args: [-v, x], env: {TOKEN: "${TOKEN}", A: b}, timeout_sec: 5, tools: [look]}
  far: {url: "http://x/mcp", headers: {Authorization: "Bearer ${TOKEN}!"}}
allow_private_addresses: true
max_tool_answer: 2048
)");
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const AgentSettings& agent = loaded->agent;
  EXPECT_EQ(agent.instructions, "do it");
  EXPECT_EQ(agent.max_turns, 3);
  EXPECT_EQ(agent.model.type, "responses");
  EXPECT_EQ(agent.model.temperature, 0.5);
  EXPECT_EQ(agent.model.max_tokens, 9);
  ASSERT_EQ(agent.tools.size(), 3u);
  EXPECT_EQ(agent.tools[1].name, "web_search");
  EXPECT_EQ(agent.tools[1].options, (Json{{"results", 3}}));
  EXPECT_EQ(agent.tools[2].options, Json::object());
  ASSERT_EQ(agent.mcp_servers.size(), 2u);
  EXPECT_THAT(agent.mcp_servers[0].settings.args, ElementsAre("-v", "x"));
  EXPECT_EQ(agent.mcp_servers[0].settings.env.at("TOKEN"), "t0ken");
  EXPECT_EQ(agent.mcp_servers[0].settings.timeout, absl::Seconds(5));
  EXPECT_THAT(agent.mcp_servers[1].settings.headers,
              ElementsAre(Pair("Authorization", "Bearer t0ken!")));
  EXPECT_THAT(agent.mcp_servers[0].tools, ElementsAre("look"));
  EXPECT_THAT(loaded->secrets, AllOf(Contains("t0ken"), Contains("b"), Contains("t0ken!")));
  EXPECT_TRUE(loaded->allow_private_addresses);
  EXPECT_EQ(loaded->max_tool_answer, 2048u);
}

TEST_F(ConfigurationTest, TheUsersOwnComeFirst) {
  EXPECT_EQ(Load("instructions: mine", "default")->agent.instructions, "mine");
  EXPECT_EQ(Load("instructions: inner", "examples/mine")->agent.instructions, "inner");
}

TEST_F(ConfigurationTest, UnknownNamesListTheKnown) {
  ASSERT_TRUE(Load("{}", "own").ok());
  for (const std::string name : {"workforce", "../own", "/etc/passwd", "", ".", "own.yaml"}) {
    EXPECT_EQ(Message(LoadConfiguration(name, Env()).status()),
              absl::StrCat("unknown agent configuration '", name,
                           "'; known are: base, default, examples/search_agent, own, "
                           "simple_search, team"));
  }
}

TEST_F(ConfigurationTest, WrongFilesNameTheField) {
  const std::map<std::string, std::string> cases = {
      {"[1]", "expected a map, got a list"},
      {"instruction: x",
       "instruction: unknown field; known are: description, instructions, max_turns, model, tools, "
       "mcp_servers, allow_private_addresses, max_tool_answer, team"},
      {"max_turns: 0", "max_turns: expected an integer from 1 to 1000, got 0"},
      {"instructions: [x]", "instructions: expected a string, got a list"},
      {"model: {temperature: warm}", "model.temperature: expected a number, got \"warm\""},
      {"model: {key: x}",
       "model.key: unknown field; known are: local, chat_template, type, name, base_url, "
       "api_key_env, temperature, max_tokens"},
      {"tools: files", "tools: expected a list, got \"files\""},
      {"tools: [3]",
       "tools[0]: expected a tool's name, or a map of one name to its options, got 3"},
      {"tools: [ssh]",
       "tools[0]: unknown tool 'ssh'; known are: arxiv, bash, documents, files, python, read_page, "
       "retrieval, web_search, wikipedia"},
      {"tools: [{arxiv: {results: none}}]",
       "tools[0].arxiv.results: expected an integer from 1 to 50, got \"none\""},
      {"tools: [{files: {folder: x}}]", "tools[0].files.folder: unknown field; there are none"},
      {"tools: [{documents: {folder: /nonexistent}}]",
       "tools[0].documents.folder: cannot open /nonexistent: No such file or directory"},
      {"tools: [{bash: {timeout_sec: 0}}]",
       "tools[0].bash.timeout_sec: expected a number above 0 and at most 86400, got 0"},
      {"tools: [files, files]", "tools[1]: two tools named list_files"},
      {"mcp_servers: {a: {}}", "mcp_servers.a: expected either `command` or `url`"},
      {"mcp_servers: {a: {url: /x}}", "mcp_servers.a.url: expected an http(s) URL"},
      {"mcp_servers: {a b: {command: x}}",
       "mcp_servers.a b: expected a short name of letters, digits, '-' and '_'"},
      {"mcp_servers: {a: {command: x, env: {K: '${NOT_SET}'}}}",
       "mcp_servers.a.env.K: the environment variable NOT_SET is not set"},
      {"team: {planner: {}, reporter: {}}",
       "team.workers: expected a map of at least one worker by name, got nothing"},
      {"{team: {workers: {w: {}}}, tools: []}",
       "tools: unknown field; known are: description, team, allow_private_addresses, "
       "max_tool_answer"},
      {"team: {workers: {w: {tool: []}}}",
       "team.workers.w.tool: unknown field; known are: description, instructions, max_turns, "
       "model, tools, mcp_servers"}};
  for (const auto& [yaml, expected] : cases) EXPECT_EQ(Error(yaml), expected) << yaml;
  EXPECT_THAT(Error("a: [b"), HasSubstr("line"));
}

TEST_F(ConfigurationTest, ErrorsShowNoValueThatMayBeSecret) {
  const std::map<std::string, std::string> cases = {
      {"env: {PIN: 4711}", "env.PIN: expected a string"},
      {"env: pin-4711", "env: expected a map"},
      {"headers: {X-Pin: 4711}", "headers.X-Pin: expected a string"},
      {"args: [--pin, 4711]", "args: expected a list of strings"},
      {"args: --pin 4711", "args: expected a list of strings"}};
  for (const auto& [yaml, expected] : cases) {
    EXPECT_EQ(Error(absl::StrCat("mcp_servers: {a: {command: x, ", yaml, "}}")),
              absl::StrCat("mcp_servers.a.", expected));
  }
}

TEST_F(ConfigurationTest, AServerThatDoesNotStartTellsNoSecret) {
  env_["TOKEN"] = "canary-0";
  const std::string error = Error(R"(
mcp_servers:
  a:
    command: sh
    args: [-c, 'read hello; echo $A $B ${B#Bearer } canary-0 canary-1 >&2', x, "postgresql://u:canary-1@db"]
    env: {A: "<${TOKEN}>", B: "Bearer canary-2"}
)");
  EXPECT_THAT(error,
              AllOf(HasSubstr("it said: *** Bearer *** *** *** ***"), Not(HasSubstr("canary"))));
}

}  // namespace
}  // namespace flowmesh::agent
