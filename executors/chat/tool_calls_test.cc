#include "executors/chat/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::chat {
namespace {

const std::vector<ToolSpec>& Tools() {
  static const std::vector<ToolSpec> kTools = {{"look", "", Json::object()},
                                               {"now", "", Json::object()}};
  return kTools;
}

TEST(ToolCallsTest, MarkedCallsLeaveTheTextAroundThem) {
  const Message message = ReadReply(
      "Let me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"q\": \"ä </x>\"}}\n"
      "</tool_call>\n<tool_call>{\"name\": \"now\"}</tool_call>",
      Tools());
  EXPECT_EQ(message.role, "assistant");
  EXPECT_EQ(message.content, "Let me see.");
  ASSERT_EQ(message.tool_calls.size(), 2u);
  EXPECT_EQ(message.tool_calls[0].name, "look");
  EXPECT_EQ(message.tool_calls[0].arguments, R"({"q":"ä </x>"})");
  EXPECT_EQ(message.tool_calls[1].arguments, "{}");
  EXPECT_EQ(message.tool_calls[0].id.size(), 9u);
  EXPECT_NE(message.tool_calls[0].id, message.tool_calls[1].id);
}

TEST(ToolCallsTest, AMarkedCallWithoutItsEndCounts) {
  const Message message = ReadReply("<tool_call>{\"name\": \"now\", \"arguments\": {}}", Tools());
  ASSERT_EQ(message.tool_calls.size(), 1u);
  EXPECT_EQ(message.content, "");
}

TEST(ToolCallsTest, BrokenJsonIsACallWithThatTextOrStaysText) {
  const Message named =
      ReadReply("<tool_call>{\"name\": \"look\", \"arguments\": {\"q\": }</tool_call>", Tools());
  ASSERT_EQ(named.tool_calls.size(), 1u);
  EXPECT_EQ(named.tool_calls[0].name, "look");
  EXPECT_EQ(named.tool_calls[0].arguments, R"({"name": "look", "arguments": {"q": })");
  for (const char* text : {"<tool_call>nothing</tool_call> more", "<tool_call>[1]</tool_call>",
                           "<tool_call>{\"name\": 3}</tool_call>", "a <tool_call>",
                           "<tool_call>{\"name\" \"x\"</tool_call>"}) {
    const Message kept = ReadReply(text, Tools());
    EXPECT_TRUE(kept.tool_calls.empty()) << text;
    EXPECT_EQ(kept.content, text);
  }
}

TEST(ToolCallsTest, LlamasFormNeedsAToolsName) {
  for (const char* text : {R"({"name": "look", "parameters": {"q": "a}"}})",
                           R"(<|python_tag|>{"name": "look", "parameters": {"q": "a}"}})"}) {
    const Message message = ReadReply(text, Tools());
    ASSERT_EQ(message.tool_calls.size(), 1u) << text;
    EXPECT_EQ(message.tool_calls[0].arguments, R"({"q":"a}"})");
    EXPECT_EQ(message.content, "");
  }
  const Message two = ReadReply(R"({"name": "now", "parameters": {}}; {"name": "look"})", Tools());
  EXPECT_EQ(two.tool_calls.size(), 2u);
  for (const char* text :
       {R"({"name": "other", "parameters": {}})", R"({"name": "look", "parameters": {})",
        R"({"name": "look"} and more)", R"({"answer": 1})", "plain", ""}) {
    const Message kept = ReadReply(text, Tools());
    EXPECT_TRUE(kept.tool_calls.empty()) << text;
    EXPECT_EQ(kept.content, text);
  }
}

TEST(ToolCallsTest, ArgumentsThatAreTextOfJson) {
  const Message message =
      ReadReply(R"(<tool_call>{"name": "look", "arguments": "{\"q\": 1}"}</tool_call>)", Tools());
  ASSERT_EQ(message.tool_calls.size(), 1u);
  EXPECT_EQ(message.tool_calls[0].arguments, R"({"q": 1})");
}

}  // namespace
}  // namespace flowmesh::chat
