// The models of this process that agents use: those that they chat with (`model.local` of their
// configurations) and the encoders of their stores.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "executors/tasks/agent.h"
#include "executors/tasks/local_chat.h"
#include "executors/tasks/warm_encoder.h"
#include "executors/tasks/warm_model.h"

namespace flowmesh::tasks {

// Keeps those of its last run warm.
class LocalModels : public AgentModels {
 public:
  // `use_cuda`: whether tasks may use `gpu`, the rank's own GPU.
  LocalModels(bool use_cuda, at::Device gpu, EnvLookup env = SystemEnv())
      : use_cuda_(use_cuda), gpu_(gpu), env_(std::move(env)) {}

  void BeginRun() override;
  // Loaded unless they are there; all chats with one model take turns. Errors: those of finding and
  // loading a model, and of its chat template.
  absl::StatusOr<std::unique_ptr<agent::ChatModel>> MakeChat(const agent::ModelOverrides& settings,
                                                             const TaskContext& context) override;
  absl::StatusOr<retrieval::Embedder> MakeEmbedder(const std::string& model,
                                                   const TaskContext& context) override;

 private:
  struct Chat {
    bool is_lent = false;  // to the run that goes on
    WarmModel model;
    ModelTurns turns;
  };
  struct Encoder {
    bool is_lent = false;
    WarmEncoder model;
  };

  // That of the name among `entries`, loaded for the task.
  template <typename Entry>
  absl::StatusOr<Entry*> Find(std::map<std::string, std::unique_ptr<Entry>>& entries,
                              const std::string& identifier, const TaskContext& context);

  const bool use_cuda_;
  const at::Device gpu_;
  const EnvLookup env_;
  std::map<std::string, std::unique_ptr<Chat>> chats_;  // by identifier
  std::map<std::string, std::unique_ptr<Encoder>> encoders_;
};

}  // namespace flowmesh::tasks
