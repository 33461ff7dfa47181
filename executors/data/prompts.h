// The prompts of a task, from `spec.data` (TASKS.md 2.4): what an inference task answers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/field.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/data/data_set.h"
#include "executors/data/split.h"

namespace flowmesh::data {

struct Prompt {
  Json raw;              // as the data holds it
  std::string rendered;  // with the system prompt: what the model gets
  Json metadata;         // a map: `prompt`, `rendered_prompt` and what the spec gives besides
  std::string path;      // the field it came from, for errors: `spec.data.items[3]`
};

// Prompts that are rows of a data set, before they are loaded.
struct DataSetPrompts {
  DataSet data_set;
  std::string column, column_path;
  // Columns that are copied into the metadata, with the names that they get there.
  std::vector<std::pair<std::string, std::string>> metadata_columns;
  bool all_metadata = false;  // every column but the prompt's
  std::optional<uint64_t> shuffle_seed;
  Shard shard;
  std::string system_prompt;
};

// The prompts of a list or template, or where they come from.
struct PromptSource {
  std::vector<Prompt> prompts;
  std::optional<DataSetPrompts> data_set;
};

// Reads and checks `spec.data` without any I/O. InvalidArgument names the field, and for a type
// that is not read here the types that are. `with_messages`: an item of a list may be a list as
// well, of a chat's messages.
absl::StatusOr<PromptSource> ReadPrompts(const Field& spec, const std::string& system_prompt,
                                         bool with_messages = false);

// The same for an agent's tasks, which may stand in `spec.task` or, of type `static`, in
// `spec.data.task` as well.
absl::StatusOr<PromptSource> ReadTasks(const Field& spec);

// The same for a retrieval's queries; a single one may stand in `spec.query`.
absl::StatusOr<PromptSource> ReadQueries(const Field& spec);

// At least one prompt, in their order: loaded, sliced, shuffled, sharded. Errors as of LoadDataSet;
// InvalidArgument for an absent column or no row.
absl::StatusOr<std::vector<Prompt>> LoadPrompts(const DataSetPrompts& from,
                                                const DataContext& context);

}  // namespace flowmesh::data
