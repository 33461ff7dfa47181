#include "clients/orchestrator/substitution.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::orchestrator {
namespace {

using ::testing::HasSubstr;

Json J(const char* text) { return ParseJson(text).value(); }

StageMap TwoStages() {
  StageMap stages;
  stages["draft"] = {
      .task_id = "t1",
      .done = true,
      .stored = J(R"({"task_id":"t1","result":{"items":[{"output":"hi"},{"output":2.0}],
                                     "ok":true,"none":null,"map":{"a":null,"it's":"x\n"}}})")};
  stages["later"] = {.task_id = "t2", .done = false, .stored = Json()};
  return stages;
}

absl::StatusOr<Json> RenderText(const std::string& text) {
  const Json document = {{"spec", {{"x", text}}}};
  ASSIGN_OR_RETURN(Json rendered, RenderDocument(document, "self", TwoStages()));
  return rendered["spec"]["x"];
}

TEST(SubstitutionTest, ALonePlaceholderKeepsItsType) {
  EXPECT_EQ(RenderText("${draft.result.items.0.output}").value(), "hi");
  EXPECT_EQ(RenderText("${draft.result.items.1.output}").value(), 2.0);
  EXPECT_EQ(RenderText("${draft.result.ok}").value(), true);
  EXPECT_TRUE(RenderText("${draft.result.items}").value().is_array());
  EXPECT_EQ(RenderText("${draft.}").value()["task_id"], "t1");
  EXPECT_EQ(RenderText("${draft..result..ok}").value(), true);
  EXPECT_EQ(RenderText("${ draft.result.ok }").value(), true);
}

TEST(SubstitutionTest, InsideTextValuesTakePythonsForm) {
  EXPECT_EQ(RenderText("<${draft.result.ok}>").value(), "<True>");
  EXPECT_EQ(RenderText("${draft.result.items.1.output}!").value(), "2.0!");
  EXPECT_EQ(RenderText("a ${draft.result.map} ${draft.result.items.0.output}").value(),
            R"(a {'a': None, "it's": 'x\n'} hi)");
  EXPECT_EQ(RenderText("no ${} place, ${unclosed").value(), "no ${} place, ${unclosed");
  EXPECT_EQ(RenderText("$${later.task_id}").value(), "$t2");
}

TEST(SubstitutionTest, PythonTextOfStrings) {
  EXPECT_EQ(PythonText(J(R"(["a'b","a\"b","a'\"b","\\","é","\u0001","\u200b","\ud83d\ude00"])")),
            R"(["a'b", 'a"b', 'a\'"b', '\\', 'é', '\x01', '\u200b', '😀'])");
  EXPECT_EQ(PythonText(J("[1e16,1e-5,-3,null,false,{}]")), "[1e+16, 1e-05, -3, None, False, {}]");
}

TEST(SubstitutionTest, WaitsForStagesThatAreNotDone) {
  EXPECT_EQ(RenderText("${later.result.x}").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(RenderText("${later.task_id}").value(), "t2");
  // A done stage without a stored result holds back every stage, named or not.
  StageMap stages = TwoStages();
  stages["draft"].stored = Json();
  const absl::Status status = RenderDocument(J(R"({"spec":{}})"), "self", stages).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr("draft"));
}

TEST(SubstitutionTest, HopelessReferencesFail) {
  for (const char* text :
       {"${ }", "${HOME}", "${nobody.result}", "${draft.result.items.2.output}",
        "${draft.result.items.-1.output}", "${draft.result.items.first}", "${draft.result.missing}",
        "${draft.result.none}", "x ${draft.result.none} y", "${draft.result.ok.more}"}) {
    const absl::Status status = RenderText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text << ": " << status;
    EXPECT_THAT(Message(status), HasSubstr("${")) << text;
  }
}

TEST(SubstitutionTest, SearchesValuesEverywhereButNoKeys) {
  const Json rendered =
      RenderDocument(
          J(R"({"metadata":{"name":"n ${draft.task_id}"},"spec":{"${draft.x}":[["${draft.task_id}"]]}})"),
          "self", TwoStages())
          .value();
  EXPECT_EQ(rendered["metadata"]["name"], "n t1");
  EXPECT_EQ(rendered["spec"]["${draft.x}"][0][0], "t1");
}

TEST(SubstitutionTest, UpstreamResultsAreTheStoredDocumentsOfOtherDoneStages) {
  StageMap stages = TwoStages();
  stages["draft"].stored["result"]["text"] = "${not.again}";
  Json rendered = RenderDocument(J(R"({"spec":{}})"), "later", stages).value();
  EXPECT_EQ(rendered["spec"]["_upstreamResults"].size(), 1u);
  EXPECT_EQ(rendered["spec"]["_upstreamResults"]["draft"]["result"]["text"], "${not.again}");
  rendered = RenderDocument(J(R"({"spec":{}})"), "draft", stages).value();
  EXPECT_FALSE(rendered["spec"].contains("_upstreamResults"));
}

TEST(SubstitutionTest, ABareResultFromSharedStorageStandsForItsResultLevel) {
  StageMap stages;
  stages["s"] = {
      .task_id = "t", .done = true, .stored = J(R"({"ok":true,"items":[{"output":"o"}]})")};
  const Json rendered =
      RenderDocument(J(R"({"spec":{"a":"${s.result.items.0.output}","b":"${s.ok}"}})"), "x", stages)
          .value();
  EXPECT_EQ(rendered["spec"]["a"], "o");
  EXPECT_EQ(rendered["spec"]["b"], true);
}

}  // namespace
}  // namespace flowmesh::orchestrator
