#include "executors/data/graph_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/yaml.h"

namespace flowmesh::data {
namespace {

using ::testing::HasSubstr;

constexpr char kUpstream[] = R"(
draft: {task_id: T1, result: {items: [{output: " first\r\nline two\n"}, {output: null}], score: 1.0, ok: true}}
other stage: {result: {grid: [[1, 2], [3, {k: "ü"}]]}}
)";

class GraphTemplateTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::string> Render(const std::string& block, const std::string& upstream) {
    const Json data = {{"template", ParseYaml(block).value()}};
    const Json results = ParseYaml(upstream).value();
    return RenderGraphTemplate(Field(&data, "spec.data"), Field(&results, "spec._upstreamResults"));
  }
  std::string Text(const std::string& block) {
    const auto text = Render(block, kUpstream);
    return text.ok() ? *text : text.status().ToString();
  }
  std::string Error(const std::string& block, const std::string& upstream = kUpstream) {
    const auto text = Render(block, upstream);
    EXPECT_TRUE(absl::IsInvalidArgument(text.status())) << text.status();
    return Message(text.status());
  }
  // One column's value.
  std::string Value(const std::string& column) {
    return Text("{name: x, text: '{col0_value}', columns: [" + column + "]}");
  }
};

TEST_F(GraphTemplateTest, ABriefingHasIntroBulletsAndClosing) {
  EXPECT_EQ(Text("{columns: [{label: ' Draft A ', expr: 'draft.result.items[0].output'}, "
                 "{expr: draft.result.score}]}"),
            "You are an energy strategist.\n"
            "Read the notes below and write a short briefing that compares them.\n"
            "\u2022 Draft A: first\n  line two\n"
            "\u2022 Column 2: 1.0\n"
            "Weigh draft a against column 2 and close with clear next steps.");
}

TEST_F(GraphTemplateTest, ABriefingTakesItsOwnWords) {
  const std::string columns =
      "columns: [{label: A, expr: draft.task_id}, {label: B, expr: draft.task_id}]";
  EXPECT_EQ(Text("{" + columns + ", options: {intro: [One, Two], closing: End}}"),
            "One\nTwo\n\u2022 A: T1\n\u2022 B: T1\nEnd");
  EXPECT_EQ(Text("{" + columns + ", options: {intro: Hi, closing: []}}"),
            "Hi\n\u2022 A: T1\n\u2022 B: T1");
  EXPECT_THAT(Text("{" + columns + ", options: {role: baker}}"), HasSubstr("You are a baker.\n"));
}

TEST_F(GraphTemplateTest, ExpressionsWalkMapsAndLists) {
  EXPECT_EQ(Value("{expr: 'draft.result.items[0].output'}"), " first\r\nline two\n");
  EXPECT_EQ(Value("{node: other stage, path: 'result.grid[1][0]'}"), "3");
  EXPECT_EQ(Value("{node: other stage, path: 'result.grid[1][1]'}"), R"({"k": "ü"})");
  EXPECT_EQ(Value("{expr: '.draft..result.ok.'}"), "True") << "empty parts are skipped";
  EXPECT_EQ(Value("{node: draft, path: result.score}"), "1.0");
}

TEST_F(GraphTemplateTest, ADefaultStandsForNothing) {
  EXPECT_EQ(Value("{expr: 'draft.result.items[1].output', default: none}"), "none");
  EXPECT_EQ(Value("{expr: 'draft.result.items[-1]', default: 7}"), "7");
  EXPECT_EQ(Value("{expr: 'draft.result.items[9].output', default: [1, a]}"), R"([1, "a"])");
  EXPECT_EQ(Value("{expr: 'draft.task_id.deeper', default: ''}"), "");
  EXPECT_THAT(Error("{columns: [{label: Gone, expr: 'draft.result.items[1].output'}]}"),
              HasSubstr("spec.data.template.columns[0]: column \"Gone\": "
                        "draft.result.items[1].output gives nothing, and there is no default; "
                        "stages here are: draft, other stage"));
}

TEST_F(GraphTemplateTest, AFreeTextReplacesKnownNamesOnly) {
  EXPECT_EQ(Text("{name: free, columns: [{label: L, expr: draft.task_id}], text: "
                 "'{col0_label}={col0_value} {{col0_value}} {col1_value} {x} { {\"a\": 1}} }}'}"),
            "L=T1 {col0_value} {col1_value} {x} { {\"a\": 1} }");
}

TEST_F(GraphTemplateTest, MistakesNameTheField) {
  EXPECT_EQ(Error("{columns: [{expr: a}]}", "{}"),
            "spec.data: graph_template needs upstream results, none were given");
  EXPECT_THAT(Error("{}"), HasSubstr("spec.data.template.columns: expected a non-empty list"));
  EXPECT_THAT(Error("{columns: [x]}"), HasSubstr("spec.data.template.columns[0]: expected a map"));
  EXPECT_THAT(Error("{columns: [{label: A}]}"),
              HasSubstr("column \"A\" needs expr, or node and path"));
  EXPECT_THAT(Error("{columns: [{label: A, expr: 'draft[x]'}]}"), HasSubstr("is no expression"));
  EXPECT_THAT(Error("{columns: [{label: A, expr: 'draft[0'}]}"), HasSubstr("is no expression"));
  EXPECT_THAT(Error("{columns: [{expr: draft.task_id}]}"), HasSubstr("at least two columns"));
  EXPECT_EQ(Error("{name: x, columns: [{expr: draft.task_id}]}"),
            "spec.data.template.name: unknown template 'x'; known: two_column_briefing, or give "
            "template.text");
  EXPECT_THAT(Error("{columns: [{expr: draft.task_id}, {expr: draft.task_id}], "
                    "options: {intro: 3}}"),
              HasSubstr("spec.data.template.options.intro: expected a string or a list"));
}

}  // namespace
}  // namespace flowmesh::data
