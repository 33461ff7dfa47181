// Where a spec says that models and adapters lie: a path, another task's folder, or a URL (TASKS.md
// 2.3, 2.9). Read and checked without I/O; fetch_source.h finds what they name.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/field.h"
#include "common/status.h"
#include "executors/data/data_set.h"

namespace flowmesh::tasks {

// A place as a spec names it. What is given is tried in the order path, task id, URL.
struct LoadSource {
  // A value and the field that gave it, for errors.
  struct Given {
    std::string field;
    std::string value;  // empty: not given

    friend bool operator==(const Given&, const Given&) = default;
  };

  std::string field;  // the block: `spec.checkpoint.load`
  Given path, task_id, url;
  // With a task id and a file name it makes a URL; empty: the orchestrator's.
  std::string base_url;
  std::string filename;   // of the download; empty: the last part of the URL
  data::Headers headers;  // values are secret
  absl::Duration timeout = absl::Seconds(60);
  Given archive_format = {"", "auto"};
  Given subdir;  // inside the archive; without it a single top folder is entered

  friend bool operator==(const LoadSource&, const LoadSource&) = default;
};

// `spec.checkpoint.load`; nothing when it is absent. InvalidArgument names the field.
absl::StatusOr<std::optional<LoadSource>> ReadCheckpointLoad(const Field& spec);

// An entry of `spec.model.adapters`.
struct AdapterSource {
  std::string name;
  std::string folder;  // its own below `_lora_cache`
  LoadSource source;
  bool merge = false;  // folded into the weights, else added in each forward pass
  double scale = 1.0;  // on top of the adapter's own

  friend bool operator==(const AdapterSource&, const AdapterSource&) = default;
};

// `spec.model.adapters`. `on_skipped` gets a text for every entry that is no LoRA.
absl::StatusOr<std::vector<AdapterSource>> ReadAdapters(
    const Field& adapters, const std::function<void(const std::string&)>& on_skipped);

}  // namespace flowmesh::tasks
