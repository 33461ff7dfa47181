#include "executors/tasks/data_context.h"

#include "absl/strings/str_cat.h"
#include "common/field.h"

namespace flowmesh::tasks {

data::DataContext DataContextOf(const TaskContext& context, const EnvLookup& env) {
  const Field destination = Field(&context.document, "")["spec"]["output"]["destination"];
  return {.task_dir = context.task_dir,
          .orchestrator_base_url = context.orchestrator_base_url,
          .orchestrator_token = context.orchestrator_token,
          .destination_url = destination["url"].String().value_or(""),
          .env = env,
          .warn = WarnTo(context),
          .on_download = OnDownloadOf(context),
          .is_cancelled = context.is_stopped};
}

std::function<void(const std::string&)> WarnTo(const TaskContext& context) {
  return [&context](const std::string& text) { context.on_log(LogLevel::kWarning, text); };
}

std::function<void(const std::string& file, uint64_t done, uint64_t total)> OnDownloadOf(
    const TaskContext& context) {
  return [&context](const std::string& file, uint64_t done, uint64_t total) {
    context.on_progress({.stage = absl::StrCat("downloading ", file),
                         .done = done,
                         .total = total,
                         .unit = "bytes"});
  };
}

retrieval::OnIngest OnIngestOf(const TaskContext& context) {
  return [&context](const std::string& stage, size_t done, size_t total) {
    context.on_progress({.stage = stage, .done = done, .total = total, .unit = "items"});
    return !context.is_stopped();
  };
}

}  // namespace flowmesh::tasks
