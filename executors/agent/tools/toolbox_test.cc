#include "executors/agent/tools/toolbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "absl/strings/str_replace.h"
#include "common/clock.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ToolboxTest : public ::testing::Test {
 protected:
  ToolboxTest() {
    EXPECT_TRUE(box_.Add(MakeTool({.name = "repeat",
                                   .parameters = Parameters(
                                       {{"text", "string", ""}, {"times", "integer", "", false}})},
                                  [](const Json& arguments, const ToolContext&) {
                                    std::string all;
                                    for (int64_t i = IntArgument(arguments, "times", 1); i > 0; --i)
                                      all += arguments["text"].get<std::string>();
                                    return all;
                                  }))
                    .ok());
    EXPECT_TRUE(
        box_.Add(MakeTool({.name = "fail"},
                          [](const Json&, const ToolContext&) -> absl::StatusOr<std::string> {
                            return absl::NotFoundError("nothing there");
                          }))
            .ok());
    EXPECT_TRUE(
        box_.Add(MakeTool({.name = "throw"},
                          [](const Json&, const ToolContext&) -> absl::StatusOr<std::string> {
                            throw std::runtime_error("out of range");
                          }))
            .ok());
  }

  ToolAnswer Call(const std::string& name, const std::string& arguments) {
    return box_.Call({.name = name, .arguments = arguments}, {}).value();
  }

  Toolbox box_{100};
};

TEST_F(ToolboxTest, AToolIsCalled) {
  const ToolAnswer answer = Call("repeat", R"({"text": "ab", "times": 2})");
  EXPECT_EQ(answer.text, "abab");
  EXPECT_FALSE(answer.failed);
}

// All of these are answers from which a model can learn.
TEST_F(ToolboxTest, WhatIsWrongWithACallIsAnAnswer) {
  const std::vector<std::tuple<std::string, std::string, std::string>> cases = {
      {"search", "{}", "error: no tool is named 'search'; known are: repeat, fail, throw"},
      {"repeat", "{\"text\": ", "error: the arguments are no JSON: "},
      {"repeat", "[1]", "error: the arguments: expected a map, got a list"},
      {"repeat", "", "error: text: required"},
      {"repeat", R"({"text": 1})", "error: text: expected a string, got 1"},
      {"repeat", R"({"text": "a", "often": 1})", "error: often: unknown"},
      {"fail", "null", "error: nothing there"},
      {"throw", " ", "error: the tool failed: out of range"}};
  for (const auto& [name, arguments, expected] : cases) {
    const ToolAnswer answer = Call(name, arguments);
    EXPECT_TRUE(answer.failed) << arguments;
    EXPECT_THAT(answer.text, StartsWith(expected));
  }
  EXPECT_THAT(Toolbox(100).Call({.name = "x"}, {})->text, HasSubstr("; there are none"));
}

TEST_F(ToolboxTest, ALongAnswerIsCutBetweenCharacters) {
  // 99 bytes and then one character of two.
  const ToolAnswer answer =
      Call("repeat", DumpJson({{"text", std::string(99, 'a') + "\xC3\xA9" + "bcd"}}));
  EXPECT_EQ(answer.text, std::string(99, 'a') + "\n[cut: 5 of 104 bytes are left out]");
  EXPECT_EQ(CutAnswer("abc", 3), "abc");
}

TEST_F(ToolboxTest, SecretsAreTakenOutBeforeAnAnswerIsCut) {
  const auto hide = [](const std::string& text) {
    return absl::StrReplaceAll(text, {{"canary", "***"}});
  };
  const std::string arguments = DumpJson({{"text", std::string(97, 'a') + "canary"}});
  EXPECT_EQ(box_.Call({.name = "repeat", .arguments = arguments}, {}, hide)->text,
            std::string(97, 'a') + "***");
  const std::string name = std::string(97, 'n') + "canary";
  EXPECT_THAT(Toolbox(200).Call({.name = name}, {}, hide)->text,
              StartsWith("error: no tool is named '" + std::string(97, 'n') + "***';"));
}

TEST_F(ToolboxTest, TheEndOfTheTaskIsNoAnswer) {
  EXPECT_TRUE(
      absl::IsCancelled(box_.Call({.name = "fail"}, {.is_stopped = [] { return true; }}).status()));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      box_.Call({.name = "fail"}, {.deadline = Clock::Real().Monotonic()}).status()));
}

TEST_F(ToolboxTest, NamesAreUnique) {
  EXPECT_TRUE(absl::IsAlreadyExists(box_.Add(MakeTool({.name = "fail"}, nullptr))));
}

}  // namespace
}  // namespace flowmesh::agent
