// The files of a task's model: those of the model that its spec names, and what
// `spec.checkpoint.load` puts in their place (TASKS.md 2.2, 2.9).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "common/env.h"
#include "common/status.h"
#include "executors/model/checkpoint.h"
#include "executors/model/overlay.h"
#include "executors/tasks/fetch_source.h"

namespace flowmesh::tasks {

struct ModelName {
  std::string identifier, revision, download_dir;
};

struct ModelFiles {
  std::filesystem::path base;     // empty: the overlay needs none
  std::filesystem::path overlay;  // empty: there is none
  model::OverlayKind kind = model::OverlayKind::kWhole;
  std::string overlay_field;  // what gave the overlay, for errors
  std::string stamp;          // of both: another one when they are other files

  // What gave the model that is whole, for errors.
  std::string field() const;
  // The folder of the adapter that is put over the model; nothing when there is none.
  std::optional<std::filesystem::path> adapter() const;
};

// The folder or file of that name: here, in the cache or from the hub. Errors name `field`, which
// gave it. Cancelled.
absl::StatusOr<std::filesystem::path> FindByName(const ModelName& name, const std::string& field,
                                                 const TaskContext& context, const EnvLookup& env);

// Finds them, with downloads. `load`: where the overlay is to be had. Errors name the field.
// Cancelled.
absl::StatusOr<ModelFiles> FindModel(const ModelName& name, const std::optional<LoadSource>& load,
                                     const FetchOptions& options, const TaskContext& context,
                                     const EnvLookup& env);

// Errors name the field.
absl::StatusOr<model::Checkpoint> OpenModelFiles(const ModelFiles& files);

}  // namespace flowmesh::tasks
