#include "executors/data/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/yaml.h"

namespace flowmesh::data {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<Prompt>> Read(const std::string& yaml, const std::string& system = "") {
  const Json spec = ParseYaml(yaml).value();
  return ReadPrompts(Field(&spec, "spec"), system);
}

std::string Error(const std::string& yaml) {
  const auto prompts = Read(yaml);
  EXPECT_TRUE(absl::IsInvalidArgument(prompts.status())) << yaml;
  return Message(prompts.status());
}

TEST(PromptsTest, AListIsItsItemsUntrimmed) {
  const auto prompts = Read("data: {type: ' List ', items: [' a ', '']}");
  ASSERT_TRUE(prompts.ok()) << prompts.status();
  ASSERT_EQ(prompts->size(), 2u);
  EXPECT_EQ((*prompts)[0].rendered, " a ");
  EXPECT_EQ((*prompts)[0].path, "spec.data.items[0]");
  EXPECT_EQ((*prompts)[0].metadata, (Json{{"prompt", " a "}, {"rendered_prompt", " a "}}));
  EXPECT_EQ((*prompts)[1].rendered, "");
}

TEST(PromptsTest, TheSystemPromptComesFirst) {
  const auto prompts = Read("data: {type: list, items: [b]}", "Be brief.");
  EXPECT_EQ(prompts->front().rendered, "Be brief.\nb");
  EXPECT_EQ(prompts->front().metadata,
            (Json{{"prompt", "b"}, {"rendered_prompt", "Be brief.\nb"}}));
}

TEST(PromptsTest, GivenMetadataWins) {
  const auto prompts =
      Read("data: {type: list, items: [a, b], metadata: [{prompt: mine, t: 1}, ~]}");
  EXPECT_EQ((*prompts)[0].metadata, (Json{{"prompt", "mine"}, {"rendered_prompt", "a"}, {"t", 1}}));
  EXPECT_EQ((*prompts)[1].metadata, (Json{{"prompt", "b"}, {"rendered_prompt", "b"}}));
  const auto alias = Read("data: {type: list, items: [a], metadata: [], items_metadata: [{t: 2}]}");
  EXPECT_EQ(alias->front().metadata["t"], 2);
}

TEST(PromptsTest, ATemplateTakesTheSystemPromptOnlyWhenAsked) {
  const std::string yaml =
      "{_upstreamResults: {s: {result: r}}, data: {type: graph_template, template: "
      "{name: x, text: 'T{col0_value}', columns: [{expr: s.result}], append_system_prompt: $}}}";
  for (const auto& [append, expected] : {std::pair("false", "Tr"), std::pair("true", "S\nTr")}) {
    std::string text = yaml;
    const auto prompts = Read(text.replace(text.find('$'), 1, append), "S");
    ASSERT_TRUE(prompts.ok()) << prompts.status();
    EXPECT_EQ(prompts->front().rendered, expected);
    EXPECT_EQ(prompts->front().metadata["prompt"], "Tr");
  }
}

TEST(PromptsTest, MistakesNameTheField) {
  EXPECT_EQ(Error("{}"), "spec.data: required");
  EXPECT_EQ(Error("data: {}"), "spec.data: required");
  EXPECT_EQ(Error("data: [a]"), "spec.data: expected a map, got a list");
  EXPECT_THAT(Error("data: {items: [a]}"), HasSubstr("spec.data.type: expected"));
  EXPECT_THAT(Error("data: {type: table}"),
              HasSubstr("spec.data.type: expected list or graph_template, got \"table\""));
  EXPECT_THAT(Error("data: {type: dataset, url: x}"), HasSubstr("spec.data.type: data sets"));
  EXPECT_EQ(Error("data: {type: list, items: [a, {b: 1}]}"),
            "spec.data.items[1]: expected a string, got a map");
  EXPECT_THAT(Error("data: {type: list, items: []}"),
              HasSubstr("spec.data.items: expected a non-"));
  EXPECT_THAT(Error("data: {type: list, items: a}"), HasSubstr("spec.data.items: expected a list"));
  EXPECT_EQ(Error("data: {type: list, items: [a], metadata: [{}, {}]}"),
            "spec.data.metadata: expected one entry for each item, got 2 entries for 1 items");
  EXPECT_EQ(Error("data: {type: list, items: [a], metadata: [3]}"),
            "spec.data.metadata[0]: expected a map, got 3");
}

}  // namespace
}  // namespace flowmesh::data
