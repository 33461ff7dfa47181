// A model by its name that stays loaded until another is wanted.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "common/env.h"
#include "executors/model/causal_lm.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// One thread at a time.
class WarmModel {
 public:
  // Makes `loaded()` the model of that name on that device, unless it is. The old one goes first:
  // two may not fit. Errors name `field`, which gave the name; then there is no model.
  absl::Status Load(const ModelName& name, const std::string& field, at::Device device,
                    const TaskContext& context, const EnvLookup& env);

  model::LoadedModel& loaded() { return loaded_; }

 private:
  std::string key_;  // of loaded_: everything that decides it, its files' times included
  model::LoadedModel loaded_;
};

}  // namespace flowmesh::tasks
