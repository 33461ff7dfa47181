#include "sidecar/delivery/delivery_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kBase[] = "http://orchestrator:8000";

absl::StatusOr<DeliveryJob> Plan(std::string_view document, const std::string& base_url = kBase) {
  const Json json = ParseJson(document).value();
  return PlanDelivery("P", "w", "2025-11-03T09:01:00.000001+00:00", json,
                      {.results_dir = "/results", .orchestrator_base_url = base_url});
}

std::string Error(std::string_view document, const std::string& base_url = kBase) {
  const absl::Status status = Plan(document, base_url).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << document << ": " << status;
  return Message(status);
}

TEST(DeliveryJobTest, AnEmptySpecStaysInResultsDir) {
  const DeliveryJob job = Plan(R"({"spec":{"taskType":"echo"}})").value();
  EXPECT_EQ(job.worker_id, "w");
  EXPECT_EQ(job.dispatched_at, "2025-11-03T09:01:00.000001+00:00");
  EXPECT_EQ(job.task.task_id, "P");
  EXPECT_EQ(job.task.dir, "/results/P");
  EXPECT_EQ(job.task.label, "");
  EXPECT_FALSE(job.task.output.delivers());
  EXPECT_TRUE(job.children.empty());
}

TEST(DeliveryJobTest, WithoutAUrlTheOrchestratorGetsTheResult) {
  constexpr char kHttp[] = R"({"spec":{"output":{"destination":{"type":"http"}}}})";
  EXPECT_EQ(Plan(kHttp).value().task.output.url, "http://orchestrator:8000/api/v1/results");
  EXPECT_EQ(Error(kHttp, ""),
            "spec.output.destination.url: required, got nothing (or set ORCHESTRATOR_BASE_URL)");
  EXPECT_EQ(Plan(R"({"spec":{"output":{"destination":{"type":"http","url":"http://x/r/"}}}})", "")
                .value()
                .task.output.url,
            "http://x/r/");
}

TEST(DeliveryJobTest, ChildrenHaveDestinationsOfTheirOwn) {
  const DeliveryJob job = Plan(R"(
    {"spec":{"taskType":"inference","output":{"destination":{"path":"parents"}}},
     "merge_children":[
      {"task_id":"C1","spec":{"output":{"destination":{"path":"kids"},"artifacts":["a"]}}},
      {"task_id":"C2","spec":{"output":{"destination":{"type":"http"}}}}]})")
                              .value();
  EXPECT_EQ(job.task.dir, "/results/parents/P");
  ASSERT_EQ(job.children.size(), 2u);
  EXPECT_EQ(job.children[0].task_id, "C1");
  EXPECT_EQ(job.children[0].dir, "/results/kids/C1");
  EXPECT_EQ(job.children[0].output.artifacts, std::vector<std::string>{"a"});
  EXPECT_EQ(job.children[0].label, "merge_children[0] (task C1)");
  EXPECT_EQ(job.children[1].dir, "/results/C2");
  EXPECT_EQ(job.children[1].output.url, "http://orchestrator:8000/api/v1/results");
}

TEST(DeliveryJobTest, AChildWithoutIdOrSpecIsSkipped) {
  const DeliveryJob job = Plan(R"(
    {"spec":{"taskType":"rag"},"merge_children":[{"spec":{}},{"task_id":"C1"},{"task_id":7,"spec":{}},
     null,"text",{"task_id":"C5","spec":{}}]})")
                              .value();
  ASSERT_EQ(job.children.size(), 1u);
  EXPECT_EQ(job.children[0].label, "merge_children[5] (task C5)");
}

TEST(DeliveryJobTest, OnlyInferenceAndRagHaveChildren) {
  const auto children_of = [](const std::string& type) {
    return Plan(R"({"spec":{"taskType":")" + type +
                R"("},"merge_children":[{"task_id":"C1","spec":{}}]})")
        .value()
        .children.size();
  };
  for (const char* type : {"inference", "rag", "vllm", "default", " RAG "}) {
    EXPECT_EQ(children_of(type), 1u) << type;
  }
  for (const char* type : {"echo", "sft", "lora_sft", "dpo", "ppo", "agent"}) {
    EXPECT_EQ(children_of(type), 0u) << type;
  }
}

TEST(DeliveryJobTest, MistakesNameTheChildAndTheField) {
  EXPECT_EQ(Error(R"({"spec":{"output":{"artifacts":7}}})"),
            "spec.output.artifacts: expected a list, got 7");
  EXPECT_EQ(Error(R"({"spec":7})"), "spec: expected a map, got 7");
  const auto child_error = [](const std::string& child) {
    return Error(R"({"spec":{"taskType":"rag"},"merge_children":[{"task_id":"C0","spec":{}},)" +
                 child + "]}");
  };
  EXPECT_EQ(child_error(R"({"task_id":"C1","spec":{"output":{"artifacts":7}}})"),
            "merge_children[1] (task C1): spec.output.artifacts: expected a list, got 7");
  EXPECT_EQ(child_error(R"({"task_id":"C1","spec":7})"),
            "merge_children[1] (task C1): spec: expected a map, got 7");
  EXPECT_THAT(child_error(R"({"task_id":"../C1","spec":{}})"),
              StartsWith("merge_children[1] (task ../C1): task_id: expected a plain file name"));
  EXPECT_THAT(child_error(R"({"task_id":"C0","spec":{}})"), HasSubstr("the task_id occurs twice"));
  EXPECT_THAT(child_error(R"({"task_id":"P","spec":{}})"), HasSubstr("the task_id occurs twice"));
}

TEST(DeliveryJobTest, PreparesTheFoldersOfAllOfThem) {
  TempDir temp;
  const Json document = ParseJson(R"({"spec":{"taskType":"rag"},"merge_children":[
                                      {"task_id":"C1","spec":{}},{"task_id":"C2","spec":{}}]})")
                            .value();
  const DeliveryJob job = PlanDelivery("P", "w", "", document,
                                       {.results_dir = temp.path(), .orchestrator_base_url = ""})
                              .value();
  ASSERT_TRUE(PrepareDirectories(job).ok());
  for (const char* name : {"P/logs", "P/artifacts", "C1/logs", "C2/artifacts"}) {
    EXPECT_TRUE(std::filesystem::is_directory(temp / name)) << name;
  }
  std::filesystem::remove_all(temp / "C2");
  ASSERT_TRUE(WriteFileAtomically(temp / "C2", "in the way").ok());
  EXPECT_THAT(Message(PrepareDirectories(job)),
              StartsWith("merge_children[1] (task C2): cannot create folder"));
}

}  // namespace
}  // namespace flowmesh::sidecar
