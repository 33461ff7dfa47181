#include "executors/data/prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/files.h"
#include "common/yaml.h"

namespace flowmesh::data {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::vector<Prompt>> Read(const std::string& yaml, const std::string& system = "") {
  const Json spec = ParseYaml(yaml).value();
  ASSIGN_OR_RETURN(const PromptSource source, ReadPrompts(Field(&spec, "spec"), system));
  if (!source.data_set) return source.prompts;
  return LoadPrompts(*source.data_set,
                     DataContext{.env = [](std::string_view) { return std::nullopt; }});
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
              HasSubstr("spec.data.type: expected list, dataset or graph_template, got \"table\""));
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

class DataSetPromptsTest : public testing::Test {
 protected:
  DataSetPromptsTest() {
    std::ofstream(folder_ / "a.jsonl") << R"({"text": "a", "n": 1, "tag": "x"}
{"text": 2, "n": null}
{"text": "c", "n": 3}
{"text": null, "n": 4}
)";
  }

  absl::StatusOr<std::vector<Prompt>> ReadSet(const std::string& fields,
                                              const std::string& shard = "~") {
    return Read("{data: {type: dataset, url: " + (folder_ / "a.jsonl").string() + fields +
                    "}, shard: " + shard + "}",
                "S");
  }

  std::string Rendered(const std::string& fields, const std::string& shard = "~") {
    const auto prompts = ReadSet(fields, shard);
    if (!prompts.ok()) return Message(prompts.status());
    std::string text;
    for (const Prompt& prompt : *prompts) text += prompt.rendered.substr(2) + ",";
    return text;
  }

  TempDir folder_;
};

TEST_F(DataSetPromptsTest, RowsAreTextsAndTheirRawValuesStay) {
  const auto prompts = ReadSet("");
  ASSERT_TRUE(prompts.ok()) << prompts.status();
  ASSERT_EQ(prompts->size(), 4u);
  EXPECT_EQ((*prompts)[1].rendered, "S\n2");
  EXPECT_EQ((*prompts)[1].metadata, (Json{{"prompt", 2}, {"rendered_prompt", "S\n2"}}));
  EXPECT_EQ((*prompts)[2].path, "spec.data.url: line 3 of a.jsonl");
  EXPECT_EQ((*prompts)[3].rendered, "S\n");
}

TEST_F(DataSetPromptsTest, MetadataColumns) {
  const auto metadata = [&](const std::string& fields, size_t row) {
    Json all = ReadSet(fields).value()[row].metadata;
    all.erase("rendered_prompt");
    return all;
  };
  EXPECT_EQ(metadata(", metadata_columns: [tag, n, none]", 0),
            (Json{{"prompt", "a"}, {"tag", "x"}, {"n", 1}}));
  EXPECT_EQ(metadata(", metadata_columns: [tag, n]", 1), (Json{{"prompt", 2}, {"n", nullptr}}));
  EXPECT_EQ(metadata(", metadata_columns: {tag: prompt}", 0), (Json{{"prompt", "x"}}));
  EXPECT_EQ(metadata(", metadata_columns: [], metadata_include_all: 'yes'", 2),
            (Json{{"prompt", "c"}, {"n", 3}, {"tag", nullptr}}));
  EXPECT_EQ(metadata(", metadata_columns: [n], metadata_include_all: true", 0),
            (Json{{"prompt", "a"}, {"n", 1}}));
}

TEST_F(DataSetPromptsTest, SliceThenShuffleThenShard) {
  EXPECT_EQ(Rendered(", column: n"), "1,,3,4,");
  EXPECT_EQ(Rendered(", column: n, split: 'train[:2]'"), "1,,");
  // default_rng(42).permutation(4) is [3, 2, 1, 0]; of 2 it is [1, 0].
  EXPECT_EQ(Rendered(", column: n, shuffle: true"), "4,3,,1,");
  EXPECT_EQ(Rendered(", column: n, shuffle: true, split: 'train[2:]'"), "4,3,");
  EXPECT_EQ(Rendered(", column: n, shuffle: true", "{total: 2, index: 0}"), "4,3,");
  EXPECT_EQ(Rendered(", column: n, shuffle: true", "{total: 2, index: 1, contiguous: false}"),
            "3,1,");
}

TEST_F(DataSetPromptsTest, MistakesNameTheField) {
  EXPECT_EQ(Rendered(", column: body"),
            "spec.data.column: column 'body' not found; columns are: text, n, tag");
  EXPECT_EQ(Rendered(", metadata_columns: n"),
            "spec.data.metadata_columns: expected a list of names, or a map of names to aliases, "
            "got \"n\"");
  EXPECT_EQ(Rendered(", seed: -1"), "spec.data.seed: expected an integer of at least 0, got -1");
  EXPECT_EQ(Rendered(", shuffle: maybe"),
            "spec.data.shuffle: expected true or false, got \"maybe\"");
  EXPECT_EQ(Rendered("", "{total: 2, index: 2}"),
            "spec.shard.index: expected an integer from 0 to 1, got 2");
  EXPECT_EQ(Rendered("", "{total: 9, index: 8}"),
            "spec.data.url: expected at least one row in split and shard, got none of 4");
  EXPECT_EQ(Error("data: {type: dataset, column: x}"), "spec.data.url: required");
}

}  // namespace
}  // namespace flowmesh::data
