// The models of this process that agents chat with (`model.local` of their configurations).
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "executors/tasks/agent.h"
#include "executors/tasks/local_chat.h"
#include "executors/tasks/warm_model.h"

namespace flowmesh::tasks {

// Keeps those of its last task warm. One task at a time.
class LocalModels {
 public:
  // `use_cuda`: whether tasks may use `gpu`, the rank's own GPU.
  LocalModels(bool use_cuda, at::Device gpu, EnvLookup env = SystemEnv())
      : use_cuda_(use_cuda), gpu_(gpu), env_(std::move(env)) {}

  // A chat with `settings.local`, loaded unless it is there; all chats with it take turns. It must
  // not outlive the task. Errors: those of finding and loading a model, and of its chat template.
  absl::StatusOr<std::unique_ptr<agent::ChatModel>> Make(const agent::ModelOverrides& settings,
                                                         const TaskContext& context);

 private:
  struct Entry {
    std::string task_id;  // the last that asked for it
    WarmModel model;
    ModelTurns turns;
  };

  absl::StatusOr<Entry*> Find(const std::string& identifier, const TaskContext& context);

  const bool use_cuda_;
  const at::Device gpu_;
  const EnvLookup env_;
  std::map<std::string, std::unique_ptr<Entry>> entries_;  // by identifier
};

}  // namespace flowmesh::tasks
