// What an inference task asks for: its spec read and checked as a whole, before any model is loaded
// (TASKS.md 1.3, 2, 3.2).
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/data/jsonl_export.h"
#include "executors/data/prompts.h"
#include "executors/engine/sampling.h"
#include "executors/tasks/chat_prompts.h"
#include "executors/tasks/load_source.h"

namespace flowmesh::tasks {

// Which model, and how it runs (TASKS.md 2.2).
struct ModelSpec {
  std::string identifier;  // as the spec gives it
  std::string revision;
  std::string download_dir;              // hub cache root; empty: the default one
  std::optional<c10::ScalarType> dtype;  // nothing: `auto`
  std::optional<int64_t> max_model_len;  // tokens
  std::string max_model_len_path;        // the field that gave it, for errors
  double gpu_memory_utilization = 0.9;
  std::optional<LoadSource> checkpoint;  // what takes the place of its weights
  std::vector<AdapterSource> adapters;

  friend bool operator==(const ModelSpec&, const ModelSpec&) = default;
};

// The task itself, or a child merged into it.
struct InferenceUnit {
  std::string task_id;
  std::string label;  // `merge_children[0] (task C1): ` before its errors; empty for the task
  std::vector<data::Prompt> prompts;
  std::optional<data::DataSetPrompts> data_set;  // whose rows become the prompts
  std::optional<ChatSettings> chat;              // prompts go through the chat template
  engine::SamplingParams params;
  std::optional<data::JsonlExport> jsonl_export;
};

struct InferenceSpec {
  ModelSpec model;
  bool use_cuda = false;
  std::vector<InferenceUnit> units;  // the task first, then its children in their order
};

// `document`: TASKS.md 1.1. `has_cuda`: whether this rank may use a GPU; the engine's own defaults
// depend on it. `warn` gets what is not an error: skipped children, and keys that nobody reads.
// InvalidArgument names the field, and the child where there is one.
absl::StatusOr<InferenceSpec> ReadInferenceSpec(
    const Json& document, bool has_cuda, const EnvLookup& env,
    const std::function<void(const std::string&)>& warn);

}  // namespace flowmesh::tasks
