#include "executors/agent/assistant.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/redact.h"
#include "executors/agent/endpoint.h"
#include "executors/agent/tools/catalogue.h"
#include "executors/agent/tools/mcp_tools.h"

namespace flowmesh::agent {

absl::StatusOr<std::unique_ptr<Toolbox>> Assistant::MakeToolbox(const AgentSettings& settings,
                                                                const Parts& parts) const {
  auto toolbox = std::make_unique<Toolbox>(parts.configuration.max_tool_answer);
  for (const ToolChoice& choice : settings.tools) {
    ASSIGN_OR_RETURN(const Tools tools, MakeTools(choice, parts.environment));
    for (const auto& tool : tools) RETURN_IF_ERROR(Annotate(toolbox->Add(tool), choice.path));
  }
  for (const McpServer& server : settings.mcp_servers) {
    ASSIGN_OR_RETURN(const Tools tools, MakeMcpTools(server, parts.environment.is_stopped));
    for (const auto& tool : tools) {
      RETURN_IF_ERROR(Annotate(toolbox->Add(tool), "mcp_servers." + server.settings.name));
    }
  }
  return toolbox;
}

absl::StatusOr<std::unique_ptr<ChatModel>> Assistant::MakeModel(const ModelOverrides& settings,
                                                                const Parts& parts) {
  if (!settings.local.empty()) {
    if (!parts.make_local) {
      return absl::FailedPreconditionError("model.local: this worker runs no models itself");
    }
    auto local = parts.make_local(settings);
    if (!local.ok()) return Annotate(local.status(), "model.local");
    return local;
  }
  ASSIGN_OR_RETURN(EndpointSettings endpoint,
                   ReadEndpointSettings(parts.environment.env, settings));
  secrets_.push_back(endpoint.api_key);
  for (std::string& secret : UrlSecrets(endpoint.base_url)) secrets_.push_back(std::move(secret));
  return MakeEndpoint(std::move(endpoint));
}

absl::StatusOr<Agent> Assistant::MakeAgent(const std::string& name, const AgentSettings& settings,
                                           const Parts& parts) {
  ASSIGN_OR_RETURN(std::unique_ptr<ChatModel> model, MakeModel(settings.model, parts));
  ASSIGN_OR_RETURN(std::unique_ptr<Toolbox> toolbox, MakeToolbox(settings, parts));
  models_.push_back(std::move(model));
  toolboxes_.push_back(std::move(toolbox));
  return Agent{.name = name,
               .instructions = settings.instructions,
               .model = models_.back().get(),
               .tools = toolboxes_.back().get(),
               .max_turns = settings.max_turns};
}

absl::StatusOr<Team> Assistant::MakeTeam(const Parts& parts) {
  const TeamSettings& settings = *parts.configuration.team;
  Team team{.max_steps = settings.max_steps};
  ASSIGN_OR_RETURN(team.planner, MakeAgent("planner", settings.planner, parts));
  ASSIGN_OR_RETURN(team.reporter, MakeAgent("reporter", settings.reporter, parts));
  for (const auto& [name, worker] : settings.workers) {
    ASSIGN_OR_RETURN(Agent agent, MakeAgent(name, worker, parts));
    team.workers.push_back({std::move(agent), worker.description});
  }
  return team;
}

absl::StatusOr<std::unique_ptr<Assistant>> Assistant::Make(const AgentConfiguration& configuration,
                                                           ToolEnvironment environment,
                                                           const MakeLocalModel& make_local) {
  auto assistant = absl::WrapUnique(new Assistant());
  assistant->secrets_ = configuration.secrets;
  for (std::string& secret : ToolSecrets(environment.env)) {
    assistant->secrets_.push_back(std::move(secret));
  }
  // A server that did not start may have said what its settings were.
  const auto failure = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        WithoutSecrets(Message(status), HttpRequest(), assistant->secrets_));
  };
  const std::string where =
      absl::StrCat("agent configuration '", configuration.name, "' (", configuration.source, ")");
  environment.allow_private_addresses = configuration.allow_private_addresses;
  const Parts parts{configuration, environment, make_local};
  if (configuration.team) {
    absl::StatusOr<Team> team = assistant->MakeTeam(parts);
    if (!team.ok()) return Annotate(failure(team.status()), where);
    assistant->team_ = *std::move(team);
  } else {
    absl::StatusOr<Agent> agent = assistant->MakeAgent("", configuration.agent, parts);
    if (!agent.ok()) return Annotate(failure(agent.status()), where);
    assistant->agent_ = *std::move(agent);
  }
  return assistant;
}

absl::StatusOr<std::string> Assistant::Run(const std::string& task,
                                           const RunContext& context) const {
  return team_ ? RunTeam(*team_, task, context) : RunAgent(agent_, task, context);
}

}  // namespace flowmesh::agent
