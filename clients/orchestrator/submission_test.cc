#include "clients/orchestrator/submission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/yaml.h"

namespace flowmesh::orchestrator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::StatusOr<std::vector<PlannedTask>> Plan(const char* text) {
  return PlanSubmission(ParseJson(text).value());
}

std::string PlanError(const char* text) {
  const auto plan = Plan(text);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  return Message(plan.status());
}

std::vector<std::string> Names(const std::vector<PlannedTask>& plan) {
  std::vector<std::string> names;
  for (const PlannedTask& task : plan) names.push_back(task.name);
  return names;
}

TEST(SubmissionTest, ALoneTaskIsItsDocument) {
  const auto plan =
      Plan(R"({"kind":"Echo","spec":{"taskType":"echo","dependsOn":["id-1"]}})").value();
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(plan[0].name, "");
  EXPECT_EQ(plan[0].document["kind"], "Echo");
  EXPECT_THAT(plan[0].after_ids, ElementsAre("id-1"));
  EXPECT_THAT(plan[0].after, IsEmpty());
}

TEST(SubmissionTest, StagesInheritMergeAndFollowEachOther) {
  const auto plan = Plan(R"({"metadata":{"name":"job","owner":"ana"},
    "spec":{"taskType":"inference","model":{"a":1,"b":{"c":2}},"list":[1,2],"dependsOn":["ignored"],
      "stages":[{"name":"one","spec":{"model":{"b":{"d":3}}}},
                {"id":"two","spec":{"list":[9],"taskType":"echo"}},
                {"spec":{"model":7},"dependsOn":["one","other-task"]}]}})")
                        .value();
  EXPECT_THAT(Names(plan), ElementsAre("one", "two", "stage-3"));
  EXPECT_EQ(DumpJson(plan[0].document["spec"]["model"]), R"({"a":1,"b":{"c":2,"d":3}})");
  EXPECT_FALSE(plan[0].document["spec"].contains("stages"));
  EXPECT_EQ(plan[0].document["metadata"]["name"], "job:one");
  EXPECT_EQ(plan[0].document["metadata"]["owner"], "ana");
  EXPECT_EQ(DumpJson(plan[1].document["spec"]["list"]), "[9]");
  EXPECT_EQ(plan[1].document["spec"]["taskType"], "echo");
  EXPECT_EQ(plan[2].document["spec"]["model"], 7);
  EXPECT_THAT(plan[0].after, IsEmpty());
  EXPECT_THAT(plan[0].after_ids, IsEmpty());  // spec.dependsOn of a staged submission is ignored
  EXPECT_THAT(plan[1].after, ElementsAre(0u));
  EXPECT_THAT(plan[2].after, ElementsAre(0u));
  EXPECT_THAT(plan[2].after_ids, ElementsAre("other-task"));
}

TEST(SubmissionTest, NamelessSubmissionsAreCalledTask) {
  const auto plan = Plan(R"({"spec":{"stages":[{"name":1}]}})").value();
  EXPECT_EQ(plan[0].name, "1");
  EXPECT_EQ(plan[0].document["metadata"]["name"], "task:1");
}

TEST(SubmissionTest, GraphNodesComeInDependencyOrder) {
  const auto plan = Plan(R"({"spec":{"stages":[],"graph":{"nodes":[
      {"name":"d","dependsOn":["b","c"]},{"name":"b","dependsOn":["a"]},{},
      {"name":"c","dependsOn":["a","a","elsewhere"]},{"name":"a"}]}}})")
                        .value();
  EXPECT_THAT(Names(plan), ElementsAre("node-3", "a", "b", "c", "d"));
  EXPECT_THAT(plan[1].after, IsEmpty());  // no implied order in a graph
  EXPECT_THAT(plan[4].after, ElementsAre(2u, 3u));
  EXPECT_THAT(plan[3].after, ElementsAre(1u));
  EXPECT_THAT(plan[3].after_ids, ElementsAre("elsewhere"));
  EXPECT_FALSE(plan[0].document["spec"].contains("graph"));
}

TEST(SubmissionTest, MistakesNameTheirField) {
  EXPECT_EQ(PlanError("[1]"), "document: expected a map, got a list");
  EXPECT_EQ(PlanError("{}"), "spec: expected a map, got nothing");
  EXPECT_EQ(PlanError(R"({"spec":3})"), "spec: expected a map, got 3");
  EXPECT_EQ(PlanError(R"({"spec":{"stages":"x"}})"), "spec.stages: expected a list, got \"x\"");
  EXPECT_EQ(PlanError(R"({"spec":{"stages":[3]}})"), "spec.stages[0]: expected a map, got 3");
  EXPECT_EQ(PlanError(R"({"spec":{"stages":[{"spec":3}]}})"),
            "spec.stages[0].spec: expected a map, got 3");
  EXPECT_THAT(PlanError(R"({"spec":{"stages":[{}],"graph":{"nodes":[{}]}}})"),
              HasSubstr("beside spec.graph"));
  EXPECT_THAT(PlanError(R"({"spec":{"stages":[{"name":"a"},{"name":"a"}]}})"),
              HasSubstr("spec.stages[1].name: the name \"a\" is already taken by spec.stages[0]"));
  EXPECT_THAT(PlanError(R"({"spec":{"stages":[{"name":"a","dependsOn":["b"]},{"name":"b"}]}})"),
              HasSubstr("which is a later stage"));
  EXPECT_THAT(PlanError(R"({"spec":{"stages":[{"name":"a","dependsOn":"b"}]}})"),
              HasSubstr("spec.stages[0].dependsOn: expected a list"));
  EXPECT_THAT(PlanError(R"({"spec":{"graph":{"nodes":[{"name":"a","dependsOn":["a"]}]}}})"),
              HasSubstr("which is itself"));
  EXPECT_THAT(PlanError(R"({"spec":{"graph":{"nodes":[{"name":"a","dependsOn":["b"]},
                           {"name":"b","dependsOn":["a"]},{"name":"c"}]}}})"),
              HasSubstr("expected no cycle, got one among: a, b"));
}

TEST(SubmissionTest, KeysThatNobodyReadAreNamed) {
  const auto unread = [](const char* yaml) { return UnreadKeys(ParseYaml(yaml).value()); };
  EXPECT_THAT(unread("{apiVersion: v1, kind: T, metadata: {a: 1}, spec: {any: 1}}"), IsEmpty());
  EXPECT_THAT(unread("{spec: {}, taskType: echo, Spec: 1}"), ElementsAre("taskType", "Spec"));
  EXPECT_THAT(
      unread("spec: {stages: [{name: a, id: b, dependsOn: [], spec: {}}, {depends_on: x}]}"),
      ElementsAre("spec.stages[1].depends_on"));
  EXPECT_THAT(unread("spec: {graph: {nodes: [{taskType: echo}]}}"),
              ElementsAre("spec.graph.nodes[0].taskType"));
  EXPECT_THAT(unread("[1]"), IsEmpty());
}

}  // namespace
}  // namespace flowmesh::orchestrator
