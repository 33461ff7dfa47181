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

// Runs may go on in several threads at once.
class Assistant {
 public:
  using Warn = std::function<void(const std::string&)>;

  // Fails with an error of the configuration or the environment before anything is asked. `warn`
  // gets what is off on this machine; it is not kept.
  static absl::StatusOr<std::unique_ptr<Assistant>> Make(const AgentConfiguration& configuration,
                                                         const EnvLookup& env, const Warn& warn);

  // The answer to one task; errors as of RunAgent.
  absl::StatusOr<std::string> Run(const std::string& task, const RunContext& context) const;

  // What must not be seen: keys of models and tools.
  const std::vector<std::string>& secrets() const { return secrets_; }

 private:
  Assistant() = default;

  absl::StatusOr<Agent> MakeAgent(const std::string& name, const AgentSettings& settings,
                                  const AgentConfiguration& configuration, const EnvLookup& env,
                                  const Warn& warn);
  absl::StatusOr<Team> MakeTeam(const AgentConfiguration& configuration, const EnvLookup& env,
                                const Warn& warn);

  std::vector<std::unique_ptr<ChatModel>> models_;
  std::vector<std::unique_ptr<Toolbox>> toolboxes_;
  std::vector<std::string> secrets_;
  Agent agent_;
  std::optional<Team> team_;  // instead
};

}  // namespace flowmesh::agent
