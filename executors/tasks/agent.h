// Task type `agent`: tasks in, answers of a model with tools out (TASKS.md 3.9). Needs no libtorch.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/env.h"
#include "executors/agent/batch.h"
#include "executors/data/prompts.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// What an agent task asks for, read and checked.
struct AgentSpec {
  std::string config_name;
  data::PromptSource prompts;
  absl::Duration timeout;  // zero: none was given
  int concurrency = 4;     // tasks at a time
};

// InvalidArgument names the field. `warn` gets the fields of `spec.agent` that nobody reads.
absl::StatusOr<AgentSpec> ReadAgentSpec(const Json& document,
                                        const std::function<void(const std::string&)>& warn);

// Models of this process, for configurations that name them. What is made must not outlive the
// run that asked for it. One run at a time.
class AgentModels {
 public:
  virtual ~AgentModels() = default;

  // A run begins: what earlier ones made is no longer used.
  virtual void BeginRun() = 0;
  // A chat with `settings.local`.
  virtual absl::StatusOr<std::unique_ptr<agent::ChatModel>> MakeChat(
      const agent::ModelOverrides& settings, const TaskContext& context) = 0;
  // The encoder of that name, for several threads.
  virtual absl::StatusOr<retrieval::Embedder> MakeEmbedder(const std::string& model,
                                                           const TaskContext& context) = 0;
};

// Keeps nothing between tasks.
class AgentRunner : public TaskRunner {
 public:
  // `models`: null where there are none to be had.
  explicit AgentRunner(EnvLookup env = SystemEnv(), std::shared_ptr<AgentModels> models = nullptr)
      : env_(std::move(env)), models_(std::move(models)) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override;

 private:
  const EnvLookup env_;
  const std::shared_ptr<AgentModels> models_;
};

}  // namespace flowmesh::tasks
