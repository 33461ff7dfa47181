// Agents whose configuration names an MCP server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/agent/assistant.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/mcp/test_server.h"

namespace flowmesh::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class McpAgentTest : public ::testing::Test {
 protected:
  // The answer of an agent with that configuration; what is said is in `said()`.
  absl::StatusOr<std::string> Run(const ScriptedEndpoint& endpoint, const std::string& yaml) {
    std::ofstream(dir_ / "own.yaml") << yaml;
    const EnvLookup env =
        endpoint.Env({{"AGENT_CONFIG_DIR", dir_.path()}, {"TOKEN", "-canary-token"}});
    ASSIGN_OR_RETURN(const AgentConfiguration configuration, LoadConfiguration("own", env));
    ASSIGN_OR_RETURN(const auto assistant, Assistant::Make(configuration, {.env = env}, {}));
    Transcript transcript(dir_ / "said.jsonl", assistant->secrets(), nullptr);
    return assistant->Run("go", {.transcript = &transcript});
  }
  std::string said() { return ReadFile(dir_ / "said.jsonl").value_or(""); }

  TempDir dir_;
};

TEST_F(McpAgentTest, AProgram) {
  mcp::ScriptedServer(dir_.path(), R"PY(
    if message["method"] == "tools/list":
        answer(message, {"tools": [{"name": "echo"}]})
    elif message["method"] == "tools/call":
        text(message, message["params"]["arguments"]["text"] + os.environ["SUFFIX"])
)PY");
  ScriptedEndpoint endpoint({Calls("local_echo", R"({"text": "canary"})"), Says("done")});
  const auto answer =
      Run(endpoint, absl::StrCat("mcp_servers: {local: {command: python3, args: ['",
                                 (dir_ / "server.py").string(), "'], env: {SUFFIX: '${TOKEN}'}}}"));
  EXPECT_EQ(answer.value(), "done");
  EXPECT_EQ(endpoint.body(1)["messages"].back()["content"], "canary***")
      << "what the environment gave is blanked even for the model";
  EXPECT_THAT(said(), Not(HasSubstr("-canary-token")));
}

}  // namespace
}  // namespace flowmesh::agent
