#include "executors/tasks/local_models.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "executors/tasks/fetch_source.h"
#include "executors/tasks/model_files.h"

namespace flowmesh::tasks {
namespace {

constexpr int64_t kReplyTokens = 1024;  // where the configuration gives no max_tokens

}  // namespace

absl::StatusOr<LocalModels::Entry*> LocalModels::Find(const std::string& identifier,
                                                      const TaskContext& context) {
  ASSIGN_OR_RETURN(const bool enforces_cpu,
                   Field(&context.document, "")["spec"]["enforce_cpu"].BoolOr(false));
  const at::Device device = use_cuda_ && !enforces_cpu ? gpu_ : at::Device(at::kCPU);
  ASSIGN_OR_RETURN(const std::filesystem::path path,
                   FindByName({identifier, "main", ""}, identifier, context, env_));
  std::string key = absl::StrCat(device.str(), "\n", StampOf(path));
  // Those of earlier tasks go first: with them it may not fit.
  std::erase_if(entries_, [&](const auto& entry) {
    return entry.second->task_id != context.task_id &&
           (entry.first != identifier || entry.second->key != key);
  });
  std::unique_ptr<Entry>& entry = entries_[identifier];
  if (entry != nullptr) {
    entry->task_id = context.task_id;
    return entry.get();
  }
  context.on_progress({.stage = "loading model"});
  auto loaded = model::LoadModel(path, {.device = device});
  if (!loaded.ok()) {
    entries_.erase(identifier);
    return loaded.status();
  }
  for (const std::string& warning : loaded->warnings) context.on_log(LogLevel::kWarning, warning);
  context.on_log(LogLevel::kInfo, absl::StrCat("loaded model ", identifier, ", from ",
                                               path.string(), ", on ", device.str()));
  entry = std::make_unique<Entry>();
  entry->task_id = context.task_id;
  entry->key = std::move(key);
  entry->model = *std::move(loaded);
  return entry.get();
}

absl::StatusOr<std::unique_ptr<agent::ChatModel>> LocalModels::Make(
    const agent::ModelOverrides& settings, const TaskContext& context) {
  ASSIGN_OR_RETURN(Entry* const entry, Find(settings.local, context));
  LocalChatOptions options;
  options.params.max_tokens = settings.max_tokens.value_or(kReplyTokens);
  options.params.temperature = settings.temperature.value_or(options.params.temperature);
  options.chat_template = settings.chat_template;
  return LocalChat::Make(&entry->model, &entry->turns, std::move(options));
}

}  // namespace flowmesh::tasks
