// Task type `inference`: prompts in, completions out (TASKS.md 3.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "executors/model/causal_lm.h"
#include "executors/tasks/inference_spec.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// Keeps the model of its last task warm. One task at a time.
class InferenceRunner : public TaskRunner {
 public:
  // `use_cuda`: whether tasks may use `gpu`, the rank's own GPU.
  InferenceRunner(bool use_cuda, at::Device gpu, EnvLookup env = SystemEnv())
      : use_cuda_(use_cuda), gpu_(gpu), env_(std::move(env)) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override;

 private:
  // Makes `model_` the one that the spec asks for.
  absl::Status Load(const InferenceSpec& spec, const TaskContext& context);
  absl::StatusOr<TaskOutcome> Answer(const InferenceSpec& spec, const TaskContext& context);

  const bool use_cuda_;
  const at::Device gpu_;
  const EnvLookup env_;
  std::string model_key_;  // of model_: everything that decides it, its files' times included
  model::LoadedModel model_;
};

}  // namespace flowmesh::tasks
