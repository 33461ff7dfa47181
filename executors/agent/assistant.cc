#include "executors/agent/assistant.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "executors/agent/catalogue.h"
#include "executors/agent/endpoint.h"

namespace flowmesh::agent {

absl::StatusOr<Agent> Assistant::MakeAgent(const std::string& name, const AgentSettings& settings,
                                           const AgentConfiguration& configuration,
                                           const EnvLookup& env, const Warn& warn) {
  auto toolbox = std::make_unique<Toolbox>(configuration.max_tool_answer);
  const ToolEnvironment environment{
      .env = env, .allow_private_addresses = configuration.allow_private_addresses, .warn = warn};
  for (const ToolChoice& choice : settings.tools) {
    ASSIGN_OR_RETURN(const Tools tools, MakeTools(choice, environment));
    for (const auto& tool : tools) RETURN_IF_ERROR(Annotate(toolbox->Add(tool), choice.path));
  }
  if (!settings.mcp_servers.empty()) {
    return absl::UnimplementedError("mcp_servers: not built into this version");
  }
  ASSIGN_OR_RETURN(EndpointSettings endpoint, ReadEndpointSettings(env, settings.model));
  secrets_.push_back(endpoint.api_key);
  models_.push_back(MakeEndpoint(std::move(endpoint)));
  toolboxes_.push_back(std::move(toolbox));
  return Agent{.name = name,
               .instructions = settings.instructions,
               .model = models_.back().get(),
               .tools = toolboxes_.back().get(),
               .max_turns = settings.max_turns};
}

absl::StatusOr<Team> Assistant::MakeTeam(const AgentConfiguration& configuration,
                                         const EnvLookup& env, const Warn& warn) {
  const TeamSettings& settings = *configuration.team;
  Team team{.max_steps = settings.max_steps};
  ASSIGN_OR_RETURN(team.planner, MakeAgent("planner", settings.planner, configuration, env, warn));
  ASSIGN_OR_RETURN(team.reporter,
                   MakeAgent("reporter", settings.reporter, configuration, env, warn));
  for (const auto& [name, worker] : settings.workers) {
    ASSIGN_OR_RETURN(Agent agent, MakeAgent(name, worker, configuration, env, warn));
    team.workers.push_back({std::move(agent), worker.description});
  }
  return team;
}

absl::StatusOr<std::unique_ptr<Assistant>> Assistant::Make(const AgentConfiguration& configuration,
                                                           const EnvLookup& env, const Warn& warn) {
  auto assistant = absl::WrapUnique(new Assistant());
  assistant->secrets_ = configuration.secrets;
  for (std::string& secret : ToolSecrets(env)) assistant->secrets_.push_back(std::move(secret));
  const std::string where =
      absl::StrCat("agent configuration '", configuration.name, "' (", configuration.source, ")");
  if (configuration.team) {
    absl::StatusOr<Team> team = assistant->MakeTeam(configuration, env, warn);
    if (!team.ok()) return Annotate(team.status(), where);
    assistant->team_ = *std::move(team);
  } else {
    absl::StatusOr<Agent> agent =
        assistant->MakeAgent("", configuration.agent, configuration, env, warn);
    if (!agent.ok()) return Annotate(agent.status(), where);
    assistant->agent_ = *std::move(agent);
  }
  return assistant;
}

absl::StatusOr<std::string> Assistant::Run(const std::string& task,
                                           const RunContext& context) const {
  return team_ ? RunTeam(*team_, task, context) : RunAgent(agent_, task, context);
}

}  // namespace flowmesh::agent
