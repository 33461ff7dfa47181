// What a configuration describes, put together: its agent or team with their models and tools.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "executors/agent/configuration.h"
#include "executors/agent/loop.h"
#include "executors/agent/team.h"

namespace flowmesh::agent {

// Makes a chat model of this process for `settings.local`. Empty where there is none to be had.
using MakeLocalModel =
    std::function<absl::StatusOr<std::unique_ptr<ChatModel>>(const ModelOverrides& settings)>;

// Runs may go on in several threads at once.
class Assistant {
 public:
  // Fails with an error of the configuration, the environment, an MCP server or a store before a
  // model is asked. Which addresses are allowed is the configuration's to say.
  static absl::StatusOr<std::unique_ptr<Assistant>> Make(const AgentConfiguration& configuration,
                                                         ToolEnvironment environment,
                                                         const MakeLocalModel& make_local);

  // The answer to one task; errors as of RunAgent.
  absl::StatusOr<std::string> Run(const std::string& task, const RunContext& context) const;

  // What must not be seen: keys of models and tools.
  const std::vector<std::string>& secrets() const { return secrets_; }

 private:
  // What a configuration is put together with.
  struct Parts {
    const AgentConfiguration& configuration;
    const ToolEnvironment& environment;
    const MakeLocalModel& make_local;
  };

  Assistant() = default;

  absl::StatusOr<std::unique_ptr<Toolbox>> MakeToolbox(const AgentSettings& settings,
                                                       const Parts& parts) const;
  absl::StatusOr<std::unique_ptr<ChatModel>> MakeModel(const ModelOverrides& settings,
                                                       const Parts& parts);
  absl::StatusOr<Agent> MakeAgent(const std::string& name, const AgentSettings& settings,
                                  const Parts& parts);
  absl::StatusOr<Team> MakeTeam(const Parts& parts);

  std::vector<std::unique_ptr<ChatModel>> models_;
  std::vector<std::unique_ptr<Toolbox>> toolboxes_;
  std::vector<std::string> secrets_;
  Agent agent_;
  std::optional<Team> team_;  // instead
};

}  // namespace flowmesh::agent
