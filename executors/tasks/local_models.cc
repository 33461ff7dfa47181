#include "executors/tasks/local_models.h"

#include <utility>

#include "common/field.h"

namespace flowmesh::tasks {
namespace {

constexpr int64_t kReplyTokens = 1024;  // where the configuration gives no max_tokens

}  // namespace

void LocalModels::BeginRun() {
  for (auto& entry : chats_) entry.second->is_lent = false;
  for (auto& entry : encoders_) entry.second->is_lent = false;
}

template <typename Entry>
absl::StatusOr<Entry*> LocalModels::Find(std::map<std::string, std::unique_ptr<Entry>>& entries,
                                         const std::string& identifier,
                                         const TaskContext& context) {
  ASSIGN_OR_RETURN(const bool enforces_cpu,
                   Field(&context.document, "")["spec"]["enforce_cpu"].BoolOr(false));
  const at::Device device = use_cuda_ && !enforces_cpu ? gpu_ : at::Device(at::kCPU);
  // Those of earlier runs go first: with them it may not fit.
  std::erase_if(entries, [&](const auto& entry) {
    return !entry.second->is_lent && entry.first != identifier;
  });
  std::unique_ptr<Entry>& entry = entries[identifier];
  if (entry == nullptr) entry = std::make_unique<Entry>();
  if (entry->is_lent) return entry.get();  // as it is, whatever became of its files
  RETURN_IF_ERROR(entry->model.Load({identifier, "main", ""}, identifier, device, context, env_));
  entry->is_lent = true;
  return entry.get();
}

absl::StatusOr<std::unique_ptr<agent::ChatModel>> LocalModels::MakeChat(
    const agent::ModelOverrides& settings, const TaskContext& context) {
  ASSIGN_OR_RETURN(Chat* const entry, Find(chats_, settings.local, context));
  LocalChatOptions options;
  options.params.max_tokens = settings.max_tokens.value_or(kReplyTokens);
  options.params.temperature = settings.temperature.value_or(options.params.temperature);
  options.chat_template = settings.chat_template;
  return LocalChat::Make(&entry->model.loaded(), &entry->turns, std::move(options));
}

absl::StatusOr<retrieval::Embedder> LocalModels::MakeEmbedder(const std::string& model,
                                                              const TaskContext& context) {
  ASSIGN_OR_RETURN(Encoder* const entry, Find(encoders_, model, context));
  return entry->model.embedder();
}

}  // namespace flowmesh::tasks
