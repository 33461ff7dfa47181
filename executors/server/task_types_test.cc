#include "executors/server/task_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;

constexpr char kKnown[] = "; known types: agent, dpo, echo, inference, lora_sft, ppo, rag, sft";

class TaskTypesTest : public ::testing::Test {
 protected:
  // The canonical type, or the error's text.
  static std::string Route(const TaskTypes& types, const std::string& document) {
    const absl::StatusOr<std::string> type = types.Route(ParseJson(document).value());
    if (type.ok()) return *type;
    EXPECT_TRUE(absl::IsInvalidArgument(type.status()));
    return Message(type.status());
  }
  std::string Type(const std::string& type) const {
    return Route(types_, absl::StrCat(R"({"spec": {"taskType": )", type, "}}"));
  }

  const TaskTypes types_{{"inference"}, ""};
};

TEST_F(TaskTypesTest, TrimmedInAnyCaseWithAliases) {
  EXPECT_EQ(Type(R"("echo")"), "echo");
  EXPECT_EQ(Type(R"("  EcHo\n")"), "echo");
  EXPECT_EQ(Type(R"("Inference")"), "inference");
  EXPECT_EQ(Type(R"("vLLM")"), "inference");
  EXPECT_EQ(Type(R"(" default ")"), "inference");
}

TEST_F(TaskTypesTest, MissingOrEmpty) {
  const std::string error = absl::StrCat("spec.taskType: required, got nothing", kKnown);
  EXPECT_EQ(Route(types_, "{}"), error);
  EXPECT_EQ(Route(types_, R"({"spec": null})"), error);
  EXPECT_EQ(Route(types_, R"({"spec": {}})"), error);
  EXPECT_EQ(Type("null"), error);
  EXPECT_EQ(Type(R"("")"), error);
  EXPECT_EQ(Type(R"(" \t ")"), error);
}

TEST_F(TaskTypesTest, OfTheWrongKind) {
  EXPECT_EQ(Type("3"), "spec.taskType: expected a string, got 3");
  EXPECT_EQ(Type("[]"), "spec.taskType: expected a string, got a list");
  EXPECT_EQ(Route(types_, R"({"spec": [1]})"), "spec: expected a map, got a list");
  EXPECT_EQ(Route(types_, R"({"spec": "x"})"), R"(spec: expected a map, got "x")");
}

TEST_F(TaskTypesTest, Unknown) {
  EXPECT_EQ(Type(R"("embedding")"),
            absl::StrCat("spec.taskType: unknown type 'embedding'", kKnown));
}

TEST_F(TaskTypesTest, KnownButNotRunnable) {
  EXPECT_EQ(Type(R"("PPO")"),
            "spec.taskType: 'ppo' cannot run on this worker (not built into this version); "
            "runnable here: echo, inference");
  const TaskTypes none({}, "no rank program at /x");
  EXPECT_EQ(Route(none, R"({"spec": {"taskType": "inference"}})"),
            "spec.taskType: 'inference' cannot run on this worker (no rank program at /x); "
            "runnable here: echo");
}

TEST_F(TaskTypesTest, EveryKnownTypeIsOnOneSide) {
  EXPECT_THAT(types_.runnable(), ElementsAre("echo", "inference"));
  EXPECT_EQ(types_.unrunnable().size(), 6u);
}

}  // namespace
}  // namespace flowmesh::executor
