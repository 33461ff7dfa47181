#include "executors/tasks/warm_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/tasks/fetch_source.h"

namespace flowmesh::tasks {

absl::Status WarmModel::Load(const ModelName& name, const std::string& field, at::Device device,
                             const TaskContext& context, const EnvLookup& env) {
  ASSIGN_OR_RETURN(const std::filesystem::path path, FindByName(name, field, context, env));
  std::string key = absl::StrCat(device.str(), "\n", StampOf(path));
  if (key == key_) return absl::OkStatus();
  key_.clear();
  loaded_ = {};
  auto loaded = model::LoadModel(
      path, {.device = device, .progress = [&](uint64_t done, uint64_t total) {
               context.on_progress(
                   {.stage = "loading model", .done = done, .total = total, .unit = "bytes"});
             }});
  if (!loaded.ok()) return Annotate(loaded.status(), field);
  for (const std::string& warning : loaded->warnings) context.on_log(LogLevel::kWarning, warning);
  loaded_ = *std::move(loaded);
  key_ = std::move(key);
  context.on_log(LogLevel::kInfo, absl::StrCat("loaded model ", name.identifier, ": path ",
                                               path.string(), ", device ", device.str()));
  return absl::OkStatus();
}

}  // namespace flowmesh::tasks
