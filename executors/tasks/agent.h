// Task type `agent`: tasks in, answers of a model with tools out (TASKS.md 3.9). Needs no libtorch.
#pragma once

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

// Models of this process, for configurations that name them. They outlive the task.
using LocalChatModels = std::function<absl::StatusOr<std::unique_ptr<agent::ChatModel>>(
    const agent::ModelOverrides& settings, const TaskContext& context)>;

// Keeps nothing between tasks.
class AgentRunner : public TaskRunner {
 public:
  explicit AgentRunner(EnvLookup env = SystemEnv(), LocalChatModels local = {})
      : env_(std::move(env)), local_(std::move(local)) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override;

 private:
  const EnvLookup env_;
  const LocalChatModels local_;  // may be empty
};

}  // namespace flowmesh::tasks
