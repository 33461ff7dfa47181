#include "executors/tasks/model_files.h"

#include "absl/strings/str_cat.h"
#include "executors/model/resolve.h"
#include "executors/tasks/data_context.h"

namespace flowmesh::tasks {
namespace {

constexpr char kIdentifier[] = "spec.model.source.identifier";

}  // namespace

absl::StatusOr<std::filesystem::path> FindByName(const ModelName& name, const std::string& field,
                                                 const TaskContext& context, const EnvLookup& env) {
  const hub::Callbacks callbacks = {.is_cancelled = context.is_stopped,
                                    .on_file =
                                        [&context](const std::string& file) {
                                          context.on_log(LogLevel::kInfo,
                                                         absl::StrCat("downloading ", file));
                                        },
                                    .on_progress = OnDownloadOf(context),
                                    .on_retry = WarnTo(context)};
  auto found =
      model::ResolveModel(name.identifier, name.revision, name.download_dir, env, callbacks);
  if (!found.ok()) return Annotate(found.status(), field);
  return found;
}

std::string ModelFiles::field() const { return base.empty() ? overlay_field : kIdentifier; }

std::optional<std::filesystem::path> ModelFiles::adapter() const {
  if (overlay.empty() || kind != model::OverlayKind::kAdapter) return std::nullopt;
  return overlay;
}

absl::StatusOr<ModelFiles> FindModel(const ModelName& name, const std::optional<LoadSource>& load,
                                     const FetchOptions& options, const TaskContext& context,
                                     const EnvLookup& env) {
  ModelFiles files;
  if (load) {
    ASSIGN_OR_RETURN(Fetched fetched, Fetch(*load, options, context, env));
    files.overlay = std::move(fetched.path);
    files.overlay_field = load->field;
    files.stamp = std::move(fetched.stamp);
    const auto kind = model::RecogniseOverlay(files.overlay);
    if (!kind.ok()) return Annotate(kind.status(), load->field);
    files.kind = *kind;
  }
  if (load && files.kind == model::OverlayKind::kWhole) return files;
  ASSIGN_OR_RETURN(files.base, FindByName(name, kIdentifier, context, env));
  absl::StrAppend(&files.stamp, "\n", StampOf(files.base));
  return files;
}

absl::StatusOr<model::Checkpoint> OpenModelFiles(const ModelFiles& files) {
  model::Checkpoint checkpoint;
  if (!files.base.empty()) {
    absl::StatusOr<model::Checkpoint> base = model::OpenCheckpoint(files.base);
    if (!base.ok()) return Annotate(base.status(), files.field());
    checkpoint = *std::move(base);
  }
  if (files.overlay.empty()) return checkpoint;
  auto overlaid = model::OpenOverlay(files.overlay, files.kind, std::move(checkpoint));
  if (!overlaid.ok()) return Annotate(overlaid.status(), files.overlay_field);
  return overlaid;
}

}  // namespace flowmesh::tasks
