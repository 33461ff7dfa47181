// `spec.postprocess.jsonl_export`: prompts and answers of a task as training data (TASKS.md 2.11).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/field.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::data {

// Where a field's text comes from.
struct ExportRule {
  enum class From { kLiteral, kPrompt, kOutput, kMetadata, kItem };

  From from = From::kLiteral;
  std::string key;  // of metadata and item; empty: the whole map
  Json literal;
  Json fallback;       // instead of null or blank; null: none
  Json default_value;  // instead of a null that is left; null: none
};

struct JsonlExport {
  std::filesystem::path path;                              // relative to the task's directory
  std::vector<std::pair<std::string, ExportRule>> fields;  // in the order they are written
  std::vector<std::string> required;
};

// Nothing when the spec asks for none. InvalidArgument names the field; so does a path that leads
// out of the task's directory.
absl::StatusOr<std::optional<JsonlExport>> ReadJsonlExport(const Field& spec);

// Writes one line for each of `items` (a result's `items`) below `task_dir` and returns the block
// `jsonl_export` of the result as it is before any upload. `task_id`: for errors.
// FailedPrecondition: a required field is blank. Others: the file cannot be written.
absl::StatusOr<Json> WriteJsonlExport(const JsonlExport& plan, const Json& items,
                                      const std::filesystem::path& task_dir,
                                      const std::string& task_id);

}  // namespace flowmesh::data
