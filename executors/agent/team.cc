#include "executors/agent/team.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

constexpr char kPlanTool[] = "submit_plan";

struct Step {
  const TeamWorker* worker;
  std::string task;
  std::string result;
};

// The schema admits the workers' names only, so a plan that is taken can be carried out.
std::shared_ptr<Tool> PlanTool(const Team& team) {
  Json names = Json::array();
  for (const TeamWorker& worker : team.workers) names.push_back(worker.agent.name);
  const Json step = {{"type", "object"},
                     {"properties",
                      {{"worker", {{"type", "string"}, {"enum", names}}},
                       {"task", {{"type", "string"}, {"description", "what the worker does"}}}}},
                     {"required", {"worker", "task"}}};
  const Json parameters = {{"type", "object"},
                           {"properties", {{"steps", {{"type", "array"}, {"items", step}}}}},
                           {"required", {"steps"}}};
  return MakeTool({.name = kPlanTool,
                   .description = absl::StrCat("Hands in the plan: at most ", team.max_steps,
                                               " steps, which are done in their order."),
                   .parameters = parameters},
                  [most = static_cast<size_t>(team.max_steps)](
                      const Json& arguments, const ToolContext&) -> absl::StatusOr<std::string> {
                    const size_t steps = arguments["steps"].size();
                    if (steps > 0 && steps <= most) return "the plan is taken";
                    return absl::InvalidArgumentError(
                        absl::StrCat("steps: expected 1 to ", most, " of them, got ", steps));
                  });
}

absl::StatusOr<std::vector<Step>> Plan(const Team& team, const std::string& task,
                                       const RunContext& context) {
  Toolbox tools = *team.planner.tools;
  RETURN_IF_ERROR(tools.Add(PlanTool(team)));
  Agent planner = team.planner;
  planner.tools = &tools;
  planner.last_tool = kPlanTool;
  std::string text = absl::StrCat("The task:\n", task, "\n\nThe workers:\n");
  for (const TeamWorker& worker : team.workers) {
    absl::StrAppend(&text, "- ", worker.agent.name, ": ", worker.description, "\n");
  }
  absl::StrAppend(&text, "\nHand in your plan with the tool ", kPlanTool, ".");
  ASSIGN_OR_RETURN(const std::string said, RunAgent(planner, text, context));

  std::vector<Step> steps;
  const absl::StatusOr<Json> json = ParseJson(said);
  const Field list = json.ok() ? Field(&*json, "")["steps"] : Field(nullptr, "");
  // A plan that was said and not handed in was not checked.
  const size_t most = std::min(list.size(), static_cast<size_t>(team.max_steps));
  if (most < list.size()) {
    context.transcript->Line(absl::StrCat(planner.name, ": a plan of ", list.size(),
                                          " steps, of which the first ", most, " are done"));
  }
  for (size_t i = 0; i < most; ++i) {
    for (const TeamWorker& worker : team.workers) {
      if (list[i]["worker"].json() != worker.agent.name) continue;
      steps.push_back({&worker, list[i]["task"].String().value_or(""), ""});
    }
  }
  if (steps.empty()) {
    context.transcript->Line(absl::StrCat(planner.name, ": no plan; ",
                                          team.workers.front().agent.name, " gets the whole task"));
    steps.push_back({&team.workers.front(), task, ""});
  }
  return steps;
}

std::string Results(const std::vector<Step>& steps) {
  std::string text;
  for (size_t i = 0; i < steps.size() && !steps[i].result.empty(); ++i) {
    absl::StrAppend(&text, "\n## Step ", i + 1, " (", steps[i].worker->agent.name,
                    "): ", steps[i].task, "\n\n", steps[i].result, "\n");
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> RunTeam(const Team& team, const std::string& task,
                                    const RunContext& context) {
  ASSIGN_OR_RETURN(std::vector<Step> steps, Plan(team, task, context));
  for (size_t i = 0; i < steps.size(); ++i) {
    Step& step = steps[i];
    const std::string earlier = Results(steps);
    context.transcript->Line(
        absl::StrCat("step ", i + 1, " of ", steps.size(), ": ", step.worker->agent.name));
    absl::StatusOr<std::string> result =
        RunAgent(step.worker->agent,
                 absl::StrCat("The whole task:\n", task, "\n",
                              earlier.empty() ? "" : absl::StrCat("\nResults so far:\n", earlier),
                              "\nYour step:\n", step.task),
                 context);
    // Too many turns: the others can go on. Anything else would meet them, too.
    if (!result.ok() && !absl::IsResourceExhausted(result.status())) return result.status();
    step.result = result.ok() ? *std::move(result)
                              : absl::StrCat("This step failed: ", result.status().message());
    if (step.result.empty()) step.result = "(the worker said nothing)";
  }
  return RunAgent(team.reporter,
                  absl::StrCat("The task:\n", task, "\n\nWhat the workers report:\n",
                               Results(steps), "\nWrite the answer to the task."),
                  context);
}

}  // namespace flowmesh::agent
