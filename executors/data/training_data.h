// The data of training tasks (TASKS.md 2.8, 3.4-3.7): `spec.data` is read and checked first,
// without any I/O, and loaded later.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/data/training_source.h"

namespace flowmesh::data {

// A column as a spec names it.
struct ColumnName {
  std::string path;  // the field that names it, or would
  std::string name;  // empty: none
};

// sft and lora_sft.
struct SftData {
  TrainingSource source;
  ColumnName text, prompt, response;
  std::string separator;
};
// `spec`: the task's. InvalidArgument names the field.
absl::StatusOr<SftData> ReadSftData(const Field& spec);
// The texts to train on, in their order, at least one; EOS is not appended.
// InvalidArgument names the field, the file and the line or row.
absl::StatusOr<std::vector<std::string>> LoadSftData(const SftData& data,
                                                     const DataContext& context);

struct Preference {
  std::string prompt, chosen, rejected;
};
// dpo. Without a source (no `spec.data`) it is the built-in demo set.
struct PreferenceData {
  std::optional<TrainingSource> source;
  ColumnName prompt, chosen, rejected;

  bool is_demo() const { return !source.has_value(); }
};
absl::StatusOr<PreferenceData> ReadPreferenceData(const Field& spec);
absl::StatusOr<std::vector<Preference>> LoadPreferenceData(const PreferenceData& data,
                                                           const DataContext& context);

// ppo. Likewise.
struct QueryData {
  std::optional<TrainingSource> source;
  std::vector<ColumnName> query;  // the first that exists counts

  bool is_demo() const { return !source.has_value(); }
};
absl::StatusOr<QueryData> ReadQueryData(const Field& spec);
absl::StatusOr<std::vector<std::string>> LoadQueryData(const QueryData& data,
                                                       const DataContext& context);

}  // namespace flowmesh::data
