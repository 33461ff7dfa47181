// Tools of a real MCP server, a program that speaks over its standard input and output.
#include "executors/agent/mcp_tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "executors/agent/assistant.h"
#include "executors/agent/scripted_endpoint.h"

namespace flowmesh::agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kServer[] = R"(
import json, os, sys
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [{"name": "echo", "description": "Says it.", "inputSchema": TEXT},
         {"name": "fail/now", "inputSchema": {}}, {"name": "die"}, {"name": "sleep"}]
for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if method == "initialize":
        result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "test", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call" and params["name"] == "die":
        os._exit(3)
    elif method == "tools/call" and params["name"] == "sleep":
        continue
    elif method == "tools/call" and params["name"] == "fail/now":
        result = {"isError": True, "content": [{"type": "text", "text": "it failed"}]}
    elif method == "tools/call":
        text = params["arguments"]["text"] + os.environ.get("SUFFIX", "")
        result = {"content": [{"type": "text", "text": text}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
)";

class McpToolsTest : public ::testing::Test {
 protected:
  McpToolsTest() {
    std::ofstream(dir_ / "server.py") << kServer;
    server_.settings = {.name = "local",
                        .command = "/usr/bin/python3",
                        .args = {(dir_ / "server.py").string()},
                        .timeout = absl::Seconds(10)};
  }
  void Start() {
    const auto tools = MakeMcpTools(server_, nullptr);
    ASSERT_TRUE(tools.ok()) << tools.status();
    for (const auto& tool : *tools) ASSERT_TRUE(box_.Add(tool).ok());
  }
  ToolAnswer Call(const std::string& name, const std::string& arguments = "{}") {
    return box_.Call({.name = name, .arguments = arguments}, {}).value();
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const chat::ToolSpec& spec : box_.specs()) names.push_back(spec.name);
    return names;
  }

  TempDir dir_;
  McpServer server_;
  Toolbox box_{1000};
};

TEST_F(McpToolsTest, ToolsAreListedAndCalled) {
  server_.settings.env = {{"SUFFIX", "!"}};
  Start();
  EXPECT_THAT(Names(), ElementsAre("local_echo", "local_fail_now", "local_die", "local_sleep"));
  EXPECT_EQ(box_.specs()[0].description, "Says it.");
  EXPECT_EQ(box_.specs()[1].parameters, (Json{{"type", "object"}, {"properties", Json::object()}}));
  EXPECT_EQ(Call("local_echo", R"({"text": "hello"})").text, "hello!");
  EXPECT_EQ(Call("local_echo").text, "error: text: required") << "asked before the server is";
  EXPECT_EQ(Call("local_fail_now").text, "error: it failed");
}

TEST_F(McpToolsTest, AServerThatDiesInACallIsToldAndStartedAgain) {
  Start();
  const ToolAnswer died = Call("local_die");
  EXPECT_TRUE(died.failed);
  EXPECT_THAT(died.text, HasSubstr("local"));
  EXPECT_EQ(Call("local_echo", R"({"text": "back"})").text, "back");
}

TEST_F(McpToolsTest, ACallThatNeverEndsIsEnded) {
  Start();
  const absl::Duration begin = Clock::Real().Monotonic();
  const auto late =
      box_.Call({.name = "local_sleep"}, {.deadline = begin + absl::Milliseconds(300)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  const auto stopped = box_.Call({.name = "local_sleep"}, {.is_stopped = [&] {
                                   return Clock::Real().Monotonic() - begin > absl::Seconds(1);
                                 }});
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(5));
  EXPECT_EQ(Call("local_echo", R"({"text": "still there"})").text, "still there");
}

TEST_F(McpToolsTest, OnlyWantedToolsAreThere) {
  server_.tools = {"echo"};
  Start();
  EXPECT_THAT(Names(), ElementsAre("local_echo"));
  server_.tools = {"shout"};
  EXPECT_EQ(Message(MakeMcpTools(server_, nullptr).status()),
            "mcp_servers.local.tools: it has no tool 'shout'; it has: echo, fail/now, die, sleep");
}

TEST_F(McpToolsTest, AServerThatCannotBeStartedIsNamed) {
  server_.settings.command = "/nonexistent/server";
  EXPECT_THAT(Message(MakeMcpTools(server_, nullptr).status()),
              AllOf(HasSubstr("mcp_servers: local"), HasSubstr("/nonexistent/server")));
}

TEST_F(McpToolsTest, AnAgentUsesThem) {
  ScriptedEndpoint endpoint({Calls("local_echo", R"({"text": "canary"})"), Says("done")});
  std::ofstream(dir_ / "own.yaml")
      << absl::StrCat("mcp_servers: {local: {command: /usr/bin/python3, args: ['",
                      (dir_ / "server.py").string(), "'], env: {SUFFIX: '${TOKEN}'}}}");
  const EnvLookup env =
      endpoint.Env({{"AGENT_CONFIG_DIR", dir_.path()}, {"TOKEN", "-canary-token"}});
  const auto configuration = LoadConfiguration("own", env);
  ASSERT_TRUE(configuration.ok()) << configuration.status();
  const auto assistant =
      Assistant::Make(*configuration, env, [](const std::string&) {}, nullptr, {});
  ASSERT_TRUE(assistant.ok()) << assistant.status();
  Transcript transcript(dir_ / "said.jsonl", (*assistant)->secrets(), nullptr);
  const auto answer = (*assistant)->Run("go", {.transcript = &transcript});
  EXPECT_EQ(answer.value(), "done");
  EXPECT_EQ(endpoint.body(1)["messages"].back()["content"], "canary***")
      << "what the environment gave is blanked even for the model";
  EXPECT_THAT(ReadFile(dir_ / "said.jsonl").value(), Not(HasSubstr("-canary-token")));
}

}  // namespace
}  // namespace flowmesh::agent
