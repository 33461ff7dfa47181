// Tools of a real MCP server, a program that speaks over its standard input and output.
#include "executors/agent/tools/mcp_tools.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/clock.h"
#include "common/files.h"
#include "executors/agent/tools/toolbox.h"

namespace flowmesh::agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

}  // namespace
}  // namespace flowmesh::agent
