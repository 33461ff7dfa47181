// An agent on the chat endpoint of llama-cpp-python, which serves the demo's model. Its Python, the
// environment of tests/goldens/models with `llama-cpp-python[server]`, is named by
// FLOWMESH_LLAMA_PYTHON:
//
//     FLOWMESH_LLAMA_PYTHON=VENV/bin/python ./dev test -R agent_test
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/http.h"
#include "common/subprocess.h"
#include "common/test_announced_port.h"
#include "executors/agent/assistant.h"

namespace flowmesh::agent {
namespace {

using ::testing::HasSubstr;

class LlamaServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* python = std::getenv("FLOWMESH_LLAMA_PYTHON");
    const char* model = std::getenv("FLOWMESH_GEMMA_GGUF");
    if (python == nullptr || model == nullptr) {
      GTEST_SKIP() << "FLOWMESH_LLAMA_PYTHON and FLOWMESH_GEMMA_GGUF are not both set";
    }
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    said_.emplace(fds[0]);
    UniqueFd theirs(fds[1]);
    server_ = Subprocess::Start(
        {.argv = {python, "-m", "llama_cpp.server", "--model", model, "--host", "127.0.0.1",
                  "--port", "0", "--n_ctx", "1024", "--n_threads", "2", "--chat_format", "gemma"},
         .stderr_fd = theirs.get()});
    ASSERT_TRUE(server_.ok()) << server_.status();
    theirs.Reset();
    url_ = absl::StrCat("http://127.0.0.1:", ReadAnnouncedPort(said_->get()), "/v1");
    // What it says later must not fill the pipe.
    drain_ = std::thread([this] {
      for (char buffer[4096]; ::read(said_->get(), buffer, sizeof(buffer)) > 0;)
        ;
    });
  }

  void TearDown() override {
    if (server_.ok()) server_->Signal(SIGKILL);
    if (drain_.joinable()) drain_.join();
  }

  EnvLookup Env() const {
    return [url = url_](std::string_view name) -> std::optional<std::string> {
      if (name == "UTU_LLM_BASE_URL") return url;
      if (name == "UTU_LLM_MODEL") return "gemma";
      if (name == "UTU_LLM_API_KEY") return "none";
      return std::nullopt;
    };
  }

  std::unique_ptr<ChatModel> Model(const ModelOverrides& overrides) const {
    return MakeEndpoint(ReadEndpointSettings(Env(), overrides).value());
  }

  // The server's whole answer, as it gives it without a stream.
  Json WholeAnswer(const Json& body) const {
    HttpClient client;
    const auto reply = client.Send({.method = "POST",
                                    .url = url_ + "/chat/completions",
                                    .headers = {{"Content-Type", "application/json"}},
                                    .body = DumpJson(body),
                                    .timeout = absl::Minutes(2)});
    EXPECT_TRUE(reply.ok()) << reply.status();
    return ParseJson(reply.ok() ? reply->body : "{}").value();
  }

  std::string url_;

 private:
  std::optional<UniqueFd> said_;
  absl::StatusOr<Subprocess> server_ = absl::UnknownError("");
  std::thread drain_;
};

TEST_F(LlamaServerTest, AStreamIsTheWholeAnswer) {
  const std::vector<chat::Message> messages = {{.role = "user", .content = "Name three rivers."}};
  const std::vector<chat::ToolSpec> no_tools;
  const auto reply =
      Model({.temperature = 0, .max_tokens = 24})->Chat({.messages = messages, .tools = no_tools});
  ASSERT_TRUE(reply.ok()) << reply.status();
  const Json whole =
      WholeAnswer({{"messages", {{{"role", "user"}, {"content", "Name three rivers."}}}},
                   {"temperature", 0},
                   {"max_tokens", 24}});
  const Json& choice = whole["choices"][0];
  EXPECT_FALSE(reply->message.content.empty());
  EXPECT_EQ(reply->message.content, choice["message"]["content"].get<std::string>());
  EXPECT_EQ(reply->finish_reason, choice["finish_reason"].get<std::string>());
}

TEST_F(LlamaServerTest, AnAgentAnswersAndTheNextOneToo) {
  const EnvLookup env = Env();
  const auto configuration = LoadConfiguration("default", env);
  ASSERT_TRUE(configuration.ok()) << configuration.status();
  AgentConfiguration brief = *configuration;
  brief.agent.model.max_tokens = 16;
  const auto assistant = Assistant::Make(brief, {.env = env}, {});
  ASSERT_TRUE(assistant.ok()) << assistant.status();
  TempDir dir;
  for (const char* task : {"What is the capital of France?", "And of Spain?"}) {
    Transcript transcript(dir / "said.jsonl", (*assistant)->secrets(), nullptr);
    const auto answer = (*assistant)->Run(task, {.transcript = &transcript});
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_FALSE(answer->empty());
  }
}

TEST_F(LlamaServerTest, StopsInTheMiddleAndServesOn) {
  const std::vector<chat::Message> messages = {{.role = "user", .content = "Count to a million."}};
  const std::vector<chat::ToolSpec> no_tools;
  const auto model = Model({.temperature = 0, .max_tokens = 900});
  const absl::Time begin = absl::Now();
  int polls = 0;
  const auto stopped = model->Chat(
      {.messages = messages, .tools = no_tools, .is_stopped = [&] { return ++polls > 3; }});
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(absl::Now() - begin, absl::Seconds(10));
  const auto next =
      Model({.temperature = 0, .max_tokens = 4})->Chat({.messages = messages, .tools = no_tools});
  EXPECT_TRUE(next.ok()) << next.status();
}

// It answers 200 and ends the stream before its first event.
TEST_F(LlamaServerTest, ATextThatIsTooLongForItIsAnError) {
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "river ");
  const std::vector<chat::Message> messages = {{.role = "user", .content = text}};
  const std::vector<chat::ToolSpec> no_tools;
  EndpointSettings settings = ReadEndpointSettings(Env(), {}).value();
  settings.retry_limit = absl::Seconds(1);
  const auto reply = MakeEndpoint(settings)->Chat({.messages = messages, .tools = no_tools});
  EXPECT_THAT(std::string(reply.status().message()), HasSubstr("an empty answer"));
}

}  // namespace
}  // namespace flowmesh::agent
