#include "executors/agent/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/test_listener.h"
#include "executors/agent/scripted_endpoint.h"

namespace flowmesh::agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kKey[] = "canary-key-in-the-header";

class EndpointTest : public ::testing::Test {
 protected:
  absl::StatusOr<ChatReply> Chat(const EnvLookup& env, const ModelOverrides& overrides = {}) {
    ASSIGN_OR_RETURN(EndpointSettings settings, ReadEndpointSettings(env, overrides));
    settings.retry_limit = retry_limit_;
    settings.silence = absl::Seconds(5);
    model_ = MakeEndpoint(std::move(settings));
    return Again();
  }
  absl::StatusOr<ChatReply> Again() {
    return model_->Chat(
        {.messages = messages_, .tools = tools_, .deadline = deadline_, .is_stopped = is_stopped_});
  }

  std::vector<chat::Message> messages_ = {{.role = "system", .content = "Be brief."},
                                          {.role = "user", .content = "Hello"}};
  std::vector<chat::ToolSpec> tools_;
  absl::Duration retry_limit_ = absl::Seconds(20);
  absl::Duration deadline_ = absl::InfiniteDuration();
  std::function<bool()> is_stopped_;
  std::unique_ptr<ChatModel> model_;
};

TEST_F(EndpointTest, AStreamIsPutTogether) {
  ScriptedEndpoint endpoint({Says("Hello, world")});
  const auto reply =
      Chat(endpoint.Env({{"UTU_LLM_API_KEY", kKey}}), {.temperature = 0.5, .max_tokens = 100});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->message.role, "assistant");
  EXPECT_EQ(reply->message.content, "Hello, world");
  EXPECT_EQ(reply->finish_reason, "stop");
  EXPECT_EQ(reply->usage.prompt_tokens, 30);
  EXPECT_EQ(reply->usage.completion_tokens, 12);
  EXPECT_EQ(endpoint.request(0).path, "/v1/chat/completions");
  EXPECT_EQ(endpoint.request(0).get_header_value("Authorization"), absl::StrCat("Bearer ", kKey));
  EXPECT_EQ(endpoint.body(0), (Json{{"model", "m"},
                                    {"messages",
                                     {{{"role", "system"}, {"content", "Be brief."}},
                                      {{"role", "user"}, {"content", "Hello"}}}},
                                    {"temperature", 0.5},
                                    {"max_tokens", 100},
                                    {"stream", true},
                                    {"stream_options", {{"include_usage", true}}}}));
}

TEST_F(EndpointTest, ToolsGoOutAndCallsComeIn) {
  tools_ = {{.name = "look", .description = "Looks.", .parameters = {{"type", "object"}}}};
  messages_.push_back(
      {.role = "assistant", .tool_calls = {{.id = "c1", .name = "look", .arguments = "{}"}}});
  messages_.push_back({.role = "tool", .content = "seen", .tool_call_id = "c1", .name = "look"});
  ScriptedEndpoint endpoint({Stream(
      {Chunk(
           ParseJson(
               R"({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}}]})")
               .value()),
       Chunk(
           ParseJson(
               R"({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "look", "arguments": "{\"n\""}}]})")
               .value()),
       Chunk(
           ParseJson(
               R"({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": ": 2}"}}]})")
               .value()),
       Chunk(Json::object(), "tool_calls"), "[DONE]"})});
  const auto reply = Chat(endpoint.Env());
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_THAT(reply->message.tool_calls, SizeIs(2));
  EXPECT_EQ(reply->message.tool_calls[0].arguments, "{}");
  EXPECT_EQ(reply->message.tool_calls[1].id, "b");
  EXPECT_EQ(reply->message.tool_calls[1].arguments, R"({"n": 2})");
  EXPECT_EQ(reply->finish_reason, "tool_calls");
  const Json body = endpoint.body(0);
  EXPECT_EQ(
      body["tools"][0],
      ParseJson(
          R"({"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}})")
          .value());
  EXPECT_EQ(
      body["messages"][2],
      ParseJson(
          R"({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]})")
          .value());
  EXPECT_EQ(body["messages"][3],
            ParseJson(R"({"role": "tool", "content": "seen", "tool_call_id": "c1"})").value());
}

TEST_F(EndpointTest, ArgumentsInTheHistoryAreMaps) {
  messages_.push_back({.role = "assistant",
                       .tool_calls = {{.id = "1", .name = "x", .arguments = R"({"a": )"},
                                      {.id = "2", .name = "x", .arguments = " "},
                                      {.id = "3", .name = "x", .arguments = "null"},
                                      {.id = "4", .name = "x", .arguments = "[1]"},
                                      {.id = "5", .name = "x", .arguments = R"({"a":  1})"}}});
  const std::vector<std::string> expected = {R"({"invalid":"{\"a\": "})", "{}", "{}",
                                             R"({"invalid":"[1]"})", R"({"a":  1})"};
  ScriptedEndpoint endpoint({Says("yes")});
  ASSERT_TRUE(Chat(endpoint.Env()).ok());
  retry_limit_ = absl::ZeroDuration();  // this endpoint speaks the other form
  (void)Chat(endpoint.Env({{"UTU_LLM_TYPE", "responses"}}));
  const Json completions = endpoint.body(0)["messages"][2]["tool_calls"];
  const Json responses = endpoint.body(1)["input"];
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(completions[i]["function"]["arguments"], expected[i]);
    EXPECT_EQ(responses[2 + i]["arguments"], expected[i]);
  }
}

// Servers that send whole calls, without an index or an id, or a map as the arguments.
TEST_F(EndpointTest, CallsOfServersThatAreNotQuiteLikeOpenAi) {
  ScriptedEndpoint endpoint({Stream(
      {Chunk(ParseJson(R"({"tool_calls": [{"function": {"name": "x", "arguments": {"a": 1}}}]})")
                 .value()),
       Chunk(
           ParseJson(R"({"tool_calls": [{"function": {"name": "y", "arguments": "{"}}]})").value()),
       Chunk(ParseJson(R"({"tool_calls": [{"function": {"arguments": "}"}}]})").value(),
             "stop")})});
  const auto reply = Chat(endpoint.Env());
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_THAT(reply->message.tool_calls, SizeIs(2));
  EXPECT_EQ(reply->message.tool_calls[0].arguments, R"({"a":1})");
  EXPECT_EQ(reply->message.tool_calls[1].name, "y");
  EXPECT_EQ(reply->message.tool_calls[1].arguments, "{}");
  EXPECT_NE(reply->message.tool_calls[0].id, reply->message.tool_calls[1].id);
}

TEST_F(EndpointTest, SeveralCallsOfOneIndex) {
  ScriptedEndpoint endpoint({Stream(
      {Chunk(ParseJson(R"({"tool_calls": [{"index": 0, "id": "a", "function":
                 {"name": "x", "arguments": "{"}}]})")
                 .value()),
       Chunk(
           ParseJson(R"({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})").value()),
       Chunk(ParseJson(R"({"tool_calls": [{"index": 0, "id": "b", "function":
                 {"name": "x", "arguments": "{\"n\""}}]})")
                 .value()),
       Chunk(
           ParseJson(R"({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})").value(),
           "tool_calls")})});
  const auto reply = Chat(endpoint.Env());
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_THAT(reply->message.tool_calls, SizeIs(2));
  EXPECT_EQ(reply->message.tool_calls[0].id, "a");
  EXPECT_EQ(reply->message.tool_calls[0].arguments, "{}");
  EXPECT_EQ(reply->message.tool_calls[1].id, "b");
  EXPECT_EQ(reply->message.tool_calls[1].arguments, R"({"n":1})");
}

TEST_F(EndpointTest, AWholeAnswerIsReadWhereAStreamWasAskedFor) {
  ScriptedEndpoint endpoint({Status(200, R"( {"choices": [{"message": {"role": "assistant",
      "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "tool_calls": [
      {"id": "c", "type": "function", "function": {"name": "x", "arguments": "{}"}}]},
      "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})")});
  const auto reply = Chat(endpoint.Env());
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->message.content, "ab");
  EXPECT_EQ(reply->message.tool_calls.at(0).id, "c");
  EXPECT_EQ(reply->usage.completion_tokens, 2);
}

TEST_F(EndpointTest, AServerThatRefusesToStreamIsAskedForWholeAnswers) {
  ScriptedEndpoint endpoint([](const Json& body) {
    if (body.contains("stream")) return Status(400, R"({"error": "stream is not supported"})");
    return Status(200, R"({"choices": [{"message": {"content": "whole"}}]})");
  });
  EXPECT_EQ(Chat(endpoint.Env())->message.content, "whole");
  EXPECT_EQ(Again()->message.content, "whole");
  EXPECT_EQ(endpoint.count(), 3u) << "it is asked once only";
}

TEST_F(EndpointTest, WhatMayGoAwayIsTriedAgain) {
  const std::string event = "data: " + Chunk({{"content", "half"}});
  const Reply half_event = [&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(event.substr(0, event.size() - 5), "text/event-stream");
  };
  for (const Reply& failure :
       {Status(500), Status(409), Status(408), Status(429), half_event,
        Stream({Chunk({{"content", "half"}})}), Stream({}),
        Stream({R"({"error": {"message": "overloaded"}})"}), Status(200, R"({"choices": [)")}) {
    ScriptedEndpoint endpoint({failure, Says("at last")});
    const auto reply = Chat(endpoint.Env());
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->message.content, "at last") << "nothing of the half is left";
    EXPECT_EQ(endpoint.count(), 2u);
  }
}

TEST_F(EndpointTest, AWholeReplyIsTakenWithoutTheEndOfItsLastEvent) {
  const std::string reply_bytes =
      absl::StrCat("data: ", Chunk({{"content", "all"}}, "stop"), "\n\ndata: [DONE]\n");
  ScriptedEndpoint endpoint({[&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(reply_bytes, "text/event-stream");
  }});
  EXPECT_EQ(Chat(endpoint.Env())->message.content, "all");
  EXPECT_EQ(endpoint.count(), 1u);
}

TEST_F(EndpointTest, TheConversationStaysAtTheEndpointsOrigin) {
  const ScriptedEndpoint other({Says("for others")});
  ScriptedEndpoint away({[&](const httplib::Request&, httplib::Response& reply) {
    reply.set_redirect(other.base_url() + "/chat/completions", 307);
  }});
  EXPECT_EQ(Message(Chat(away.Env()).status()),
            absl::StrCat("chat endpoint ", away.base_url(), ": HTTP 307: a redirect to ",
                         UrlOrigin(other.base_url()), ", which is not followed"));
  EXPECT_EQ(other.count(), 0u);
  ScriptedEndpoint near({[](const httplib::Request&, httplib::Response& reply) {
                           reply.set_redirect("/v2/chat/completions", 307);
                         },
                         Says("moved")});
  EXPECT_EQ(Chat(near.Env())->message.content, "moved");
}

TEST_F(EndpointTest, ThePauseThatAServerAsksForIsKept) {
  ScriptedEndpoint endpoint({Status(429, "", "1"), Says("at last")});
  const absl::Duration begin = Clock::Real().Monotonic();
  EXPECT_TRUE(Chat(endpoint.Env()).ok());
  EXPECT_GE(Clock::Real().Monotonic() - begin, absl::Seconds(1));
}

TEST_F(EndpointTest, TriesEndWithTheLastCause) {
  retry_limit_ = absl::Milliseconds(200);
  ScriptedEndpoint half({Stream({Chunk({{"content", "half"}})})});
  EXPECT_EQ(Message(Chat(half.Env()).status()),
            absl::StrCat("chat endpoint ", half.base_url(),
                         ": the stream stopped in the middle of a reply"));
  ScriptedEndpoint busy({Status(503, "busy", "100")});
  EXPECT_THAT(Message(Chat(busy.Env()).status()), HasSubstr("HTTP 503: busy"));
  EXPECT_EQ(busy.count(), 1u) << "the pause that it asks for is too long";
  int port = 0;
  {
    TestListener listener;
    port = listener.port();
  }
  const ScriptedEndpoint other({Status(200)});
  const std::string nobody = absl::StrCat("http://127.0.0.1:", port, "/v1");
  EXPECT_THAT(Message(Chat(other.Env(), {.base_url = nobody}).status()),
              AllOf(HasSubstr(nobody), HasSubstr("connect")));
}

TEST_F(EndpointTest, WhatStaysWrongIsNotTriedAgain) {
  for (const Reply& reply :
       {Status(401, "no"), Status(404, "no such model"), Status(400, "bad request"),
        Status(200, "{}"), Status(200, R"({"error": {"message": "no such model"}})"),
        Stream({"[1]"}), Stream({"no JSON"})}) {
    ScriptedEndpoint endpoint({reply});
    EXPECT_FALSE(Chat(endpoint.Env()).ok());
    EXPECT_EQ(endpoint.count(), 1u);
  }
}

TEST_F(EndpointTest, TheKeyIsInNoError) {
  ScriptedEndpoint endpoint({Status(403, absl::StrCat("the key ", kKey, " is bad"))});
  const std::string error = Message(Chat(endpoint.Env({{"UTU_LLM_API_KEY", kKey}})).status());
  EXPECT_THAT(error, AllOf(HasSubstr("HTTP 403: the key *** is bad"), Not(HasSubstr(kKey))));
  ScriptedEndpoint stream(
      {Status(200, absl::StrCat(R"({"error": {"message": "bad )", kKey, R"("}})"))});
  EXPECT_THAT(Message(Chat(stream.Env({{"UTU_LLM_API_KEY", kKey}})).status()),
              AllOf(HasSubstr("bad ***"), Not(HasSubstr(kKey))));
}

// A server that takes the request and says nothing.
TEST_F(EndpointTest, TheDeadlineAndACancelEndTheWait) {
  TestListener silent;
  const ScriptedEndpoint any({Status(200)});
  const std::string url = absl::StrCat("http://127.0.0.1:", silent.port(), "/v1");
  const absl::Duration begin = Clock::Real().Monotonic();
  deadline_ = Clock::Real().Monotonic() + absl::Milliseconds(300);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Chat(any.Env(), {.base_url = url}).status()));
  deadline_ = absl::InfiniteDuration();
  is_stopped_ = [&] { return Clock::Real().Monotonic() - begin > absl::Milliseconds(600); };
  EXPECT_TRUE(absl::IsCancelled(Chat(any.Env(), {.base_url = url}).status()));
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(4));
}

TEST_F(EndpointTest, ResponsesAreStreamed) {
  tools_ = {{.name = "look", .description = "Looks.", .parameters = {{"type", "object"}}}};
  messages_.push_back({.role = "assistant",
                       .content = "Let me see.",
                       .tool_calls = {{.id = "c1", .name = "look", .arguments = "{}"}}});
  messages_.push_back({.role = "tool", .content = "seen", .tool_call_id = "c1"});
  const Json done = ParseJson(R"({"type": "response.completed", "response": {"status": "completed",
      "error": null, "output": [{"type": "reasoning"}, {"type": "message", "content":
      [{"type": "output_text", "text": "Well"}]}, {"type": "function_call", "call_id": "c2",
      "name": "look", "arguments": "{\"a\": 1}"}],
      "usage": {"input_tokens": 9, "output_tokens": 4}}})")
                        .value();
  ScriptedEndpoint endpoint(
      {Stream({R"({"type": "response.created"})"}),  // and no more: tried again
       Stream({R"({"type": "response.output_text.delta", "delta": "We"})", DumpJson(done)})});
  const auto reply = Chat(endpoint.Env({{"UTU_LLM_TYPE", " Responses "}}));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->message.content, "Well");
  EXPECT_EQ(reply->message.tool_calls.at(0).id, "c2");
  EXPECT_EQ(reply->usage.prompt_tokens, 9);
  EXPECT_EQ(reply->finish_reason, "tool_calls");
  EXPECT_EQ(endpoint.request(1).path, "/v1/responses");
  const Json body = endpoint.body(1);
  EXPECT_EQ(body["tools"][0]["name"], "look");
  EXPECT_EQ(body["input"][2]["content"], "Let me see.");
  EXPECT_EQ(
      body["input"][3],
      ParseJson(R"({"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"})")
          .value());
  EXPECT_EQ(
      body["input"][4],
      ParseJson(R"({"type": "function_call_output", "call_id": "c1", "output": "seen"})").value());
}

TEST_F(EndpointTest, ResponsesMayComeWholeOrFail) {
  ScriptedEndpoint endpoint(
      {Status(200,
              R"({"status": "incomplete", "output": [{"type": "message", "content": "cut"}]})"),
       Stream({R"({"type": "response.failed", "response": {"error": {"message": "no luck"}}})"})});
  const EnvLookup env = endpoint.Env({{"UTU_LLM_TYPE", "responses"}});
  retry_limit_ = absl::Milliseconds(100);
  EXPECT_EQ(Chat(env)->finish_reason, "length");
  EXPECT_THAT(Message(Again().status()), HasSubstr("the server failed: no luck"));
}

TEST_F(EndpointTest, TheEnvironmentIsChecked) {
  const auto error = [&](std::map<std::string, std::string> env, ModelOverrides overrides = {}) {
    return Message(Chat(
                       [env](std::string_view name) -> std::optional<std::string> {
                         const auto it = env.find(std::string(name));
                         return it == env.end() ? std::nullopt : std::optional(it->second);
                       },
                       overrides)
                       .status());
  };
  EXPECT_THAT(error({}),
              HasSubstr("set the environment variables UTU_LLM_MODEL and UTU_LLM_BASE_URL"));
  EXPECT_THAT(error({{"UTU_LLM_MODEL", "m"}}), HasSubstr("variable UTU_LLM_BASE_URL (and"));
  EXPECT_THAT(error({{"UTU_LLM_BASE_URL", "http://x"}}, {.type = "chat", .name = "m"}),
              HasSubstr("UTU_LLM_TYPE: expected chat.completions or responses, got \"chat\""));
  EXPECT_EQ(error({{"UTU_LLM_MODEL", "m"}, {"UTU_LLM_BASE_URL", "ftp://u:p@x"}}),
            "UTU_LLM_BASE_URL: expected an http(s) URL, got \"ftp://x\"");
}

}  // namespace
}  // namespace flowmesh::agent
