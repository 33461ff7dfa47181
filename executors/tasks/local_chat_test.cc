#include "executors/tasks/local_chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "common/clock.h"
#include "common/files.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::tasks {
namespace {

using ::testing::HasSubstr;

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if tools %}{{ tools[0].function.name }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{{ mark }}{% endif %}";

class LocalChatTest : public ::testing::Test {
 protected:
  LocalChatTest() {
    auto loaded = model::LoadModel(model::ModelGolden("llama"), {});
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *std::move(loaded);
    options_.params = {.max_tokens = 6, .temperature = 0};
    options_.chat_template = kTemplate;
  }

  std::unique_ptr<LocalChat> Make() {
    auto made = LocalChat::Make(&loaded_, &turns_, options_);
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? *std::move(made) : nullptr;
  }

  // What the engine alone says to this text.
  engine::Completion Complete(const std::string& text) {
    const auto engine = engine::Engine::Create(&loaded_, engine::EngineOptions());
    const auto completions = engine->Generate(
        {{.prompt_ids = loaded_.tokenizer->Encode(text, false), .params = options_.params}},
        [](const auto&) { return true; });
    EXPECT_TRUE(completions.ok()) << completions.status();
    return completions.ok() ? completions->front() : engine::Completion();
  }

  static chat::Message User(const std::string& text) {
    chat::Message message;
    message.role = "user";
    message.content = text;
    return message;
  }

  model::LoadedModel loaded_;
  ModelTurns turns_;
  LocalChatOptions options_;
  const std::vector<chat::ToolSpec> none_;
};

TEST_F(LocalChatTest, SaysWhatTheEngineSaysToTheRenderedText) {
  options_.template_variables = {{"mark", "!"}};
  const auto chat = Make();
  const std::vector<chat::Message> messages = {User("one")};
  const std::string bos = loaded_.tokenizer->TokenText(*loaded_.tokenizer->bos_id());
  const auto reply = chat->Chat({messages, none_, absl::InfiniteDuration(), nullptr});
  ASSERT_TRUE(reply.ok()) << reply.status();
  const std::string text = bos + "user: one\nassistant:!";
  const engine::Completion want = Complete(text);
  EXPECT_EQ(reply->message.role, "assistant");
  EXPECT_EQ(reply->message.content, want.text);
  EXPECT_EQ(reply->finish_reason, want.finish_reason);
  EXPECT_EQ(reply->usage.completion_tokens, static_cast<int64_t>(want.token_ids.size()));
  EXPECT_EQ(reply->usage.prompt_tokens,
            static_cast<int64_t>(loaded_.tokenizer->Encode(text, false).size()));
  const std::vector<chat::ToolSpec> tools = {{"look", "", Json::object()}};
  const auto told = chat->Chat({messages, tools, absl::InfiniteDuration(), nullptr});
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->message.content, Complete(bos + "user: one\nlookassistant:!").text);
}

TEST_F(LocalChatTest, ThreadsAreAnsweredAsIfAlone) {
  const auto chat = Make();
  std::vector<std::string> replies(4);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < replies.size(); ++i) {
    threads.emplace_back([&, i] {
      const std::vector<chat::Message> messages = {User("word " + std::to_string(i))};
      const auto reply = chat->Chat({messages, none_, absl::InfiniteDuration(), nullptr});
      replies[i] = reply.ok() ? reply->message.content : reply.status().ToString();
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < replies.size(); ++i) {
    const std::vector<chat::Message> messages = {User("word " + std::to_string(i))};
    const auto alone = chat->Chat({messages, none_, absl::InfiniteDuration(), nullptr});
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ(replies[i], alone->message.content);
  }
}

TEST_F(LocalChatTest, LimitsEndACall) {
  options_.params.max_tokens = 200;
  const auto chat = Make();
  const std::vector<chat::Message> messages = {User("one")};
  EXPECT_TRUE(absl::IsCancelled(
      chat->Chat({messages, none_, absl::InfiniteDuration(), [] { return true; }}).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      chat->Chat({messages, none_, Clock::Real().Monotonic(), nullptr}).status()));
  int polls = 0;  // in the middle of the generation
  EXPECT_TRUE(absl::IsCancelled(
      chat->Chat({messages, none_, absl::InfiniteDuration(), [&polls] { return ++polls > 5; }})
          .status()));
}

TEST_F(LocalChatTest, AModelMayHaveATemplateForTools) {
  const TempDir dir;
  std::filesystem::copy(model::ModelGolden("llama"), dir / "model");
  const auto write = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(MakeDirectories((dir / "model" / name).parent_path()).ok());
    ASSERT_TRUE(WriteFileAtomically(dir / "model" / name, text).ok());
  };
  write("chat_template.jinja", "plain");
  write("additional_chat_templates/tool_use.jinja", "{{ tools[0].function.name }}");
  loaded_ = model::LoadModel(dir / "model", {}).value();
  options_.chat_template.clear();
  const auto chat = Make();
  ASSERT_NE(chat, nullptr);
  const std::vector<chat::Message> messages = {User("hi")};
  const auto say = [&](const std::vector<chat::ToolSpec>& tools) {
    const auto reply = chat->Chat({messages, tools, absl::InfiniteDuration(), nullptr});
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? reply->message.content : "";
  };
  EXPECT_EQ(say({}), Complete("plain").text);
  EXPECT_EQ(say({{.name = "look_up", .parameters = Json::object()}}), Complete("look_up").text);
}

TEST_F(LocalChatTest, ATemplateMayTakeOneCallInAMessageOnly) {
  options_.chat_template =
      "{% for m in messages %}{% if m.tool_calls and m.tool_calls|length != 1 %}"
      "{{ raise_exception('single calls only') }}{% endif %}"
      "{{ m.role }}:{{ m.tool_calls[0].function.name if m.tool_calls else m.content }} "
      "{% endfor %}";
  const auto chat = Make();
  chat::Message calls{.role = "assistant", .tool_calls = {{"a", "x", "{}"}, {"b", "y", "{}"}}};
  const std::vector<chat::Message> messages = {
      User("hi"),
      calls,
      {.role = "tool", .content = "one", .tool_call_id = "a"},
      {.role = "tool", .content = "two", .tool_call_id = "b"}};
  const auto reply = chat->Chat({messages, none_, absl::InfiniteDuration(), nullptr});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->message.content,
            Complete("user:hi assistant:x tool:one assistant:y tool:two ").text);
}

TEST_F(LocalChatTest, TooLongAndNoTemplate) {
  const auto chat = Make();
  const std::vector<chat::Message> messages = {User(std::string(5000, 'x'))};
  EXPECT_THAT(Message(chat->Chat({messages, none_, absl::InfiniteDuration(), nullptr}).status()),
              HasSubstr("tokens, the model takes 1 to 255"));
  options_.chat_template.clear();
  const auto without = LocalChat::Make(&loaded_, &turns_, options_);
  EXPECT_TRUE(absl::IsFailedPrecondition(without.status())) << without.status();
  EXPECT_THAT(Message(without.status()), HasSubstr("has no chat template"));
}

}  // namespace
}  // namespace flowmesh::tasks
