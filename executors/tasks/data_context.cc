#include "executors/tasks/data_context.h"

#include "common/field.h"

namespace flowmesh::tasks {

data::DataContext DataContextOf(const TaskContext& context, const EnvLookup& env) {
  const Field destination = Field(&context.document, "")["spec"]["output"]["destination"];
  return {.task_dir = context.task_dir,
          .orchestrator_base_url = context.orchestrator_base_url,
          .orchestrator_token = context.orchestrator_token,
          .destination_url = destination["url"].String().value_or(""),
          .env = env,
          .warn = [&context](const std::string& text) { context.on_log(LogLevel::kWarning, text); },
          .is_cancelled = context.is_stopped};
}

retrieval::OnIngest OnIngestOf(const TaskContext& context) {
  return [&context](const std::string& stage, size_t done, size_t total) {
    context.on_progress({.stage = stage, .done = done, .total = total, .unit = "items"});
    return !context.is_stopped();
  };
}

}  // namespace flowmesh::tasks
