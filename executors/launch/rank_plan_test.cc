#include "executors/launch/rank_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::string> kGpus = {"GPU-aa", "GPU-ab", "GPU-bc", "GPU-bd"};

absl::StatusOr<RankPlan> Plan(const std::string& type, const std::string& training,
                              const std::string& more = "",
                              const std::vector<std::string>& gpus = kGpus) {
  const std::string spec =
      absl::StrCat(R"({"spec": {"taskType": ")", type, R"(", "training": )", training, more, "}}");
  return PlanRanks(ParseJson(spec).value(), gpus);
}

std::vector<std::string> Devices(const std::string& type, const std::string& training,
                                 const std::string& more = "") {
  const absl::StatusOr<RankPlan> plan = Plan(type, training, more);
  EXPECT_TRUE(plan.ok()) << plan.status();
  if (!plan.ok()) return {};
  EXPECT_TRUE(plan->use_cuda);
  EXPECT_EQ(plan->ranks, static_cast<int>(plan->devices.size()));
  return plan->devices;
}

std::string Error(const std::string& training, const std::string& more = "") {
  return Message(Plan("sft", training, more).status());
}

TEST(RankPlan, InferenceIsOneRankWithAllGpus) {
  const RankPlan plan = Plan(" vLLM ", R"({"nproc_per_node": "nonsense"})").value();
  EXPECT_EQ(plan.ranks, 1);
  EXPECT_THAT(plan.devices, ElementsAreArray(kGpus));
  EXPECT_FALSE(plan.is_training);
}

TEST(RankPlan, TrainingGetsARankForEachGpu) {
  for (const char* type : {"sft", "dpo", "PPO "}) {
    EXPECT_THAT(Devices(type, "{}"), ElementsAreArray(kGpus)) << type;
  }
  EXPECT_TRUE(Plan("sft", "{}")->is_training);
}

TEST(RankPlan, LoraIsParallelOnlyWhenAskedTo) {
  EXPECT_THAT(Devices("lora_sft", "{}"), ElementsAre("GPU-aa"));
  EXPECT_THAT(Devices("lora_sft", R"({"allow_multi_gpu": "yes"})"), ElementsAreArray(kGpus));
}

TEST(RankPlan, VisibleDevicesChoose) {
  EXPECT_THAT(Devices("sft", R"({"visible_devices": [3, "GPU-aa"]})"),
              ElementsAre("GPU-bd", "GPU-aa"));
  EXPECT_THAT(Devices("sft", R"({"visible_devices": " 2, 0 "})"), ElementsAre("GPU-bc", "GPU-aa"));
  EXPECT_THAT(Devices("sft", R"({"visible_devices": 1})"), ElementsAre("GPU-ab"));
  EXPECT_THAT(Devices("sft", R"({"visible_devices": "GPU-bc"})"), ElementsAre("GPU-bc"));
}

TEST(RankPlan, TheCountCaps) {
  const std::string two = R"(, "resources": {"hardware": {"gpu": {"count": 2}}})";
  EXPECT_THAT(Devices("sft", "{}", two), ElementsAre("GPU-aa", "GPU-ab"));
  EXPECT_THAT(Devices("ppo", R"({"visible_devices": [1, 2, 3]})", two),
              ElementsAre("GPU-ab", "GPU-bc"));
  EXPECT_THAT(Devices("sft", "{}", R"(, "resources": {"hardware": {"gpu": {"count": 0}}})"),
              ElementsAreArray(kGpus));
}

TEST(RankPlan, ResourcesMayStandAtTheTop) {
  const auto ranks = [](const char* type) {
    const Json document =
        ParseJson(
            absl::StrCat(
                R"({"resources": {"hardware": {"gpu": {"count": 2}}}, "spec": {"taskType": ")",
                type, R"(", "resources": {"hardware": {"gpu": {"count": 3}}}}})"))
            .value();
    return PlanRanks(document, kGpus)->ranks;
  };
  EXPECT_EQ(ranks("sft"), 2);
  EXPECT_EQ(ranks("dpo"), 3);
}

TEST(RankPlan, OneGpuIsThePrimaryOne) {
  EXPECT_THAT(Devices("sft", R"({"allow_multi_gpu": false})"), ElementsAre("GPU-aa"));
  EXPECT_THAT(Devices("sft", R"({"allow_multi_gpu": "off", "primary_gpu": 2})"),
              ElementsAre("GPU-bc"));
  EXPECT_THAT(
      Devices("sft", R"({"allow_multi_gpu": false, "primary_gpu": 1, "visible_devices": "3,2"})"),
      ElementsAre("GPU-bc"));
}

TEST(RankPlan, FewerRanksThanGpusTakeTheFirst) {
  EXPECT_THAT(Devices("sft", R"({"nproc_per_node": 3})"),
              ElementsAre("GPU-aa", "GPU-ab", "GPU-bc"));
}

TEST(RankPlan, CpuRanks) {
  for (const char* training : {R"({"nproc_per_node": 4})", R"({"nproc_per_node": "4"})"}) {
    const RankPlan plan = Plan("lora_sft", training, "", {}).value();
    EXPECT_EQ(plan.ranks, 4);
    EXPECT_FALSE(plan.use_cuda);
    EXPECT_THAT(plan.devices, IsEmpty());
  }
  EXPECT_EQ(Plan("sft", "null", "", {})->ranks, 1);
  const RankPlan enforced =
      Plan("sft", R"({"nproc_per_node": 2})", R"(, "enforce_cpu": true)").value();
  EXPECT_EQ(enforced.ranks, 2);
  EXPECT_THAT(enforced.devices, IsEmpty());
}

TEST(RankPlan, Restarts) {
  EXPECT_EQ(Plan("sft", "{}")->max_restarts, 0);
  EXPECT_EQ(Plan("sft", R"({"max_restarts": 3})")->max_restarts, 3);
}

TEST(RankPlan, WhatIsWrongIsNamed) {
  EXPECT_EQ(Error("[]"), "spec.training: expected a map, got a list");
  EXPECT_THAT(Error(R"({"nproc_per_node": 0})"),
              HasSubstr("spec.training.nproc_per_node: expected"));
  EXPECT_EQ(
      Error(R"({"nproc_per_node": 5})"),
      "spec.training.nproc_per_node: expected at most 4, the number of GPUs of this task, got 5");
  EXPECT_EQ(Error(R"({"visible_devices": [0, 4]})"),
            "spec.training.visible_devices: expected places of 0 to 3 or UUIDs of this worker's "
            "GPUs, got '4'");
  EXPECT_THAT(Error(R"({"visible_devices": "GPU-a"})"), HasSubstr("got 'GPU-a'"));  // two begin so
  EXPECT_EQ(Error(R"({"visible_devices": [1, "GPU-ab"]})"),
            "spec.training.visible_devices: names the GPU 'GPU-ab' twice");
  EXPECT_THAT(Error(R"({"visible_devices": {}})"),
              HasSubstr("spec.training.visible_devices: expected a list of GPU places or UUIDs"));
  EXPECT_THAT(Error(R"({"visible_devices": [true]})"),
              HasSubstr("spec.training.visible_devices[0]: expected the place of a GPU"));
  EXPECT_THAT(Error(R"({"primary_gpu": 4})"), HasSubstr("spec.training.primary_gpu: expected"));
  EXPECT_THAT(Error(R"({"allow_multi_gpu": "perhaps"})"),
              HasSubstr("spec.training.allow_multi_gpu: expected"));
  EXPECT_THAT(Error(R"({"max_restarts": -1})"), HasSubstr("spec.training.max_restarts: expected"));
  EXPECT_THAT(Error("{}", R"(, "resources": {"hardware": {"gpu": {"count": "many"}}})"),
              HasSubstr("spec.resources.hardware.gpu.count: expected"));
}

TEST(RankPlan, FieldsOfGpusAreCheckedWithoutAnyToo) {
  const auto error = [](const std::string& training, const std::string& more = "") {
    return Message(Plan("sft", training, more, {}).status());
  };
  EXPECT_EQ(error(R"({"visible_devices": [1.5]})"),
            "spec.training.visible_devices[0]: expected the place of a GPU or a UUID, got 1.5");
  EXPECT_EQ(error(R"({"allow_multi_gpu": "perhaps"})"),
            R"(spec.training.allow_multi_gpu: expected true or false, got "perhaps")");
  EXPECT_EQ(error(R"({"primary_gpu": -1})"),
            "spec.training.primary_gpu: expected an integer of at least 0, got -1");
  EXPECT_EQ(error("{}", R"(, "resources": {"hardware": {"gpu": {"count": "many"}}})"),
            R"(spec.resources.hardware.gpu.count: expected an integer, got "many")");
  EXPECT_EQ(error(R"({"nproc_per_node": 0})"),
            "spec.training.nproc_per_node: expected an integer from 1 to 1024, got 0");
  EXPECT_EQ(error(R"({"max_restarts": "often"})"),
            R"(spec.training.max_restarts: expected an integer from 0 to 1000, got "often")");
  EXPECT_TRUE(Plan("sft", R"({"visible_devices": "0,1", "primary_gpu": 1})", "", {}).ok());
}

}  // namespace
}  // namespace flowmesh::executor
