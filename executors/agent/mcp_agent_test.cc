// Agents whose configuration names an MCP server.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/subprocess.h"
#include "executors/agent/assistant.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/mcp/test_server.h"

namespace flowmesh::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class McpAgentTest : public ::testing::Test {
 protected:
  // The answer of an agent with that configuration; what is said is in `said()`.
  absl::StatusOr<std::string> Run(const ScriptedEndpoint& endpoint, const std::string& yaml) {
    std::ofstream(dir_ / "own.yaml") << yaml;
    const EnvLookup env = endpoint.Env(
        {{"AGENT_CONFIG_DIR", dir_.path()}, {"TOKEN", "-canary-token"}, {"HF_TOKEN", "hf-canary"}});
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

TEST_F(McpAgentTest, ValuesOfTheConfigurationAndTokensOfTheWorkerAreBlankedToo) {
  mcp::ScriptedServer(dir_.path(), R"PY(
    if message["method"] == "tools/list":
        answer(message, {"tools": [{"name": "echo"}]})
    elif message["method"] == "tools/call":
        text(message, " ".join(os.environ[x] for x in ["KEY", "DEBUG", "LEVEL"]) + " hf-canary")
)PY");
  ScriptedEndpoint endpoint({Calls("local_echo", "{}"), Says("done")});
  EXPECT_TRUE(Run(endpoint, absl::StrCat("mcp_servers: {local: {command: python3, args: ['",
                                         (dir_ / "server.py").string(),
                                         "'], env: {KEY: literal-canary, DEBUG: 'true', "
                                         "LEVEL: debug}}}"))
                  .ok());
  EXPECT_EQ(endpoint.body(1)["messages"].back()["content"], "*** true debug ***");
  EXPECT_THAT(said(), Not(HasSubstr("canary")));
}

// A server at a port of loopback, a process of its own.
class HttpServer {
 public:
  explicit HttpServer(const std::string& port = "0") {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    const UniqueFd ours(fds[0]);
    UniqueFd theirs(fds[1]);
    process_ = Subprocess::Start(
        {.argv = {"python3", "-c", mcp::kHttpServer, port}, .stdout_fd = theirs.get()});
    EXPECT_TRUE(process_.ok()) << process_.status();
    theirs.Reset();
    for (char c; ::read(ours.get(), &c, 1) == 1 && c != '\n';) port_ += c;
  }

  const std::string& port() const { return port_; }
  Subprocess& process() { return *process_; }

 private:
  absl::StatusOr<Subprocess> process_ = absl::UnknownError("");
  std::string port_;
};

TEST_F(McpAgentTest, AServerOverHttpThatDiesInACallAndComesBack) {
  std::optional<HttpServer> server(std::in_place);
  const std::string port = server->port();
  const auto add = [](int a) {
    return Calls("far_add", absl::StrCat("{\"a\": ", a, ", \"b\": 2}"));
  };
  ScriptedEndpoint endpoint({add(40), Calls("far_die", "{}"), add(1),
                             [&](const httplib::Request& request, httplib::Response& reply) {
                               EXPECT_EQ(
                                   server->process().Wait(absl::Seconds(20)).value().exit_code, 3);
                               server.emplace(port);
                               add(2)(request, reply);
                             },
                             Says("done")});
  const auto answer =
      Run(endpoint, absl::StrCat("mcp_servers: {far: {url: 'http://127.0.0.1:", port,
                                 "/mcp', headers: {Authorization: 'Bearer ${TOKEN}'}}}"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, "done");
  const auto told = [&](size_t turn) {
    return endpoint.body(turn)["messages"].back()["content"].get<std::string>();
  };
  EXPECT_EQ(endpoint.body(0)["tools"][0]["function"]["name"], "far_add");
  EXPECT_EQ(told(1), "42 for Bearer ***") << "the header arrived, and nobody sees the key";
  EXPECT_EQ(told(2), "error: far: the server's stream ends without an answer");
  EXPECT_THAT(told(3), StartsWith("error: far: ")) << "nobody listens";
  EXPECT_EQ(told(4), "4 for Bearer ***") << "in a session of its own";
  EXPECT_THAT(said(), Not(HasSubstr("-canary-token")));
}

TEST_F(McpAgentTest, AServerOverHttpThatIsNotThere) {
  std::string port;
  {
    HttpServer gone;
    port = gone.port();
  }
  ScriptedEndpoint endpoint({Says("never")});
  const auto answer =
      Run(endpoint, absl::StrCat("mcp_servers: {far: {url: 'http://127.0.0.1:", port, "/mcp'}}"));
  EXPECT_THAT(Message(answer.status()), HasSubstr("mcp_servers: far: initialize: "));
  EXPECT_EQ(endpoint.count(), 0u);
}

}  // namespace
}  // namespace flowmesh::agent
