#include <ATen/Parallel.h>
#include <torch/version.h>

#include "absl/strings/str_cat.h"
#include "executors/tasks/inference.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

std::map<std::string, std::unique_ptr<TaskRunner>> MakeTaskRunners(const RankOptions& options) {
  if (options.threads > 0) at::set_num_threads(options.threads);
  const at::Device gpu(at::kCUDA, static_cast<at::DeviceIndex>(options.local_rank));
  std::map<std::string, std::unique_ptr<TaskRunner>> runners;
  runners["inference"] = std::make_unique<InferenceRunner>(options.use_cuda, gpu);
  return runners;
}

std::string TorchVersion() {
  return absl::StrCat(TORCH_VERSION_MAJOR, ".", TORCH_VERSION_MINOR, ".", TORCH_VERSION_PATCH);
}

}  // namespace flowmesh::tasks
