// Finds what a LoadSource names: on this machine, or by a download.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/status.h"
#include "executors/tasks/load_source.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

struct Fetched {
  std::filesystem::path path;  // a folder, or a file that is no archive
  // Another one when the content is: the digest of a download, else StampOf.
  std::string stamp;
};

struct FetchOptions {
  // What in another task's folder is meant: the first of these that is there, else the folder
  // itself when `is_meant` says so.
  std::vector<std::string> names;
  bool (*is_meant)(const std::filesystem::path& folder) = nullptr;
  std::filesystem::path folder;  // gets downloads and what is unpacked
  // Another rank of this task has filled `folder` already. The result has no stamp then.
  bool may_reuse = false;
};

// The options for `spec.checkpoint.load` and for an adapter of `spec.model.adapters`.
// `adapter_first`: an adapter is looked for before a model (lora_sft).
FetchOptions CheckpointOptions(const TaskContext& context, bool adapter_first);
FetchOptions AdapterOptions(const TaskContext& context, const AdapterSource& adapter);

// NotFound when it is at none of the places; that and all other errors name the field. The token
// goes where TASKS.md 2.9 lets it. Cancelled.
absl::StatusOr<Fetched> Fetch(const LoadSource& source, const FetchOptions& options,
                              const TaskContext& context, const EnvLookup& env);

// The path, sizes, times and inodes of the files in a folder and below, or of a file.
std::string StampOf(const std::filesystem::path& path);

}  // namespace flowmesh::tasks
