#include <ATen/Parallel.h>
#include <torch/version.h>

#include "absl/strings/str_cat.h"
#include "executors/tasks/agent.h"
#include "executors/tasks/inference.h"
#include "executors/tasks/local_models.h"
#include "executors/tasks/rag.h"
#include "executors/tasks/task_runner.h"
#include "executors/tasks/training.h"

namespace flowmesh::tasks {
namespace {

using TrainingTask = absl::StatusOr<TaskOutcome> (*)(const TaskContext&, const TrainingDevice&,
                                                     const EnvLookup&);

// Keeps nothing between tasks.
class TrainingRunner : public TaskRunner {
 public:
  TrainingRunner(TrainingTask task, const TrainingDevice& device) : task_(task), device_(device) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override {
    return task_(context, device_, SystemEnv());
  }

 private:
  const TrainingTask task_;
  const TrainingDevice device_;
};

}  // namespace

std::map<std::string, std::unique_ptr<TaskRunner>> MakeTaskRunners(const RankOptions& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  const at::Device gpu(at::kCUDA, static_cast<at::DeviceIndex>(options.local_rank));
  std::map<std::string, std::unique_ptr<TaskRunner>> runners;
  runners["agent"] = std::make_unique<AgentRunner>(
      SystemEnv(), std::make_shared<LocalModels>(options.use_cuda, gpu));
  runners["inference"] = std::make_unique<InferenceRunner>(options.use_cuda, gpu);
  runners["rag"] = std::make_unique<RagRunner>(options.use_cuda, gpu);
  const TrainingDevice device = {options.use_cuda, gpu};
  runners["sft"] = std::make_unique<TrainingRunner>(RunSft, device);
  runners["lora_sft"] = std::make_unique<TrainingRunner>(RunLoraSft, device);
  runners["dpo"] = std::make_unique<TrainingRunner>(RunDpo, device);
  runners["ppo"] = std::make_unique<TrainingRunner>(RunPpo, device);
  return runners;
}

std::string TorchVersion() {
  return absl::StrCat(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH);
}

}  // namespace flowmesh::tasks
