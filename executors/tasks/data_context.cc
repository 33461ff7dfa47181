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

}  // namespace flowmesh::tasks
