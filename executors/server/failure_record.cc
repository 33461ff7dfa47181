#include "executors/server/failure_record.h"

#include <filesystem>

#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::executor {
namespace {

// What is wrong with a field is what the task failed of, if anything: here it counts as absent.
std::string TextOf(const Field& field) {
  return std::string(Trim(field.StringOr("").value_or("")));
}

std::string ModelName(const Field& spec, const std::string& type) {
  std::string name = TextOf(spec["model"]["source"]["identifier"]);
  if (!name.empty()) return name;
  return type == "dpo" || type == "ppo" ? "microsoft/DialoGPT-small" : "gpt2";  // TASKS.md 2.2
}

}  // namespace

Json TrainingFailureRecord(const v1::ExecuteRequest& request, const Json& document,
                           const std::string& type, absl::Duration time,
                           const std::string& message) {
  const Field spec = Field(&document, "")["spec"];
  const std::filesystem::path task_dir = request.task_dir();
  const std::string resume = TextOf(spec["training"]["resume_from_path"]);
  return {{"task_id", request.task_id()},
          {"training_successful", false},
          {"training_time_seconds", absl::ToDoubleSeconds(time)},
          {"error_message", message},
          {"model_name", ModelName(spec, type)},
          {"dataset_size", 0},
          {"output_dir", task_dir.string()},
          {"checkpoints_dir", (task_dir / "checkpoints").string()},
          {"resume_from_path", resume.empty() ? Json(nullptr) : Json(resume)}};
}

}  // namespace flowmesh::executor
