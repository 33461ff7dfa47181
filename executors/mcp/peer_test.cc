// The client with servers of the `mcp` package (tests/goldens/mcp). `./dev test` installs it and
// names its Python in FLOWMESH_MCP_PYTHON.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/subprocess.h"
#include "common/test_announced_port.h"
#include "executors/mcp/client.h"

namespace flowmesh::mcp {
namespace {

using ::testing::HasSubstr;

class PeerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* python = std::getenv("FLOWMESH_MCP_PYTHON");
    if (python == nullptr) GTEST_SKIP() << "FLOWMESH_MCP_PYTHON is not set";
    python_ = python;
    script_ = absl::StrCat(std::getenv("FLOWMESH_SOURCE_DIR"), "/tests/goldens/mcp/server.py");
  }

  static void UseTools(ServerSettings settings) {
    settings.name = "peer";
    Client client(std::move(settings));
    const auto tools = client.ListTools({});
    ASSERT_TRUE(tools.ok()) << tools.status();
    ASSERT_EQ(tools->size(), 2u);
    EXPECT_EQ((*tools)[0].name, "add");
    EXPECT_EQ((*tools)[0].description, "Adds two numbers.");
    EXPECT_EQ((*tools)[0].input_schema["required"], (Json{"a", "b"}));
    const auto sum = client.CallTool("add", {{"a", 2}, {"b", 40}}, {});
    ASSERT_TRUE(sum.ok()) << sum.status();
    EXPECT_EQ(sum->text, "2 + 40 = 42");
    EXPECT_FALSE(sum->is_error);
    const auto failed = client.CallTool("fail", {{"why", "no reason"}}, {});
    ASSERT_TRUE(failed.ok()) << failed.status();
    EXPECT_TRUE(failed->is_error);
    EXPECT_THAT(failed->text, HasSubstr("Error executing tool fail"));
  }

  std::string python_, script_;
};

TEST_F(PeerTest, OverStdio) {
  ServerSettings settings;
  settings.command = python_;
  settings.args = {script_, "stdio"};
  UseTools(std::move(settings));
}

TEST_F(PeerTest, OverHttp) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  SubprocessOptions options;
  options.argv = {python_, script_, "http", "0"};
  options.stderr_fd = theirs.get();
  const auto process = Subprocess::Start(options);
  ASSERT_TRUE(process.ok()) << process.status();
  theirs.Reset();
  ServerSettings settings;
  settings.url = absl::StrCat("http://127.0.0.1:", ReadAnnouncedPort(ours.get()), "/mcp");
  UseTools(std::move(settings));
}

}  // namespace
}  // namespace flowmesh::mcp
