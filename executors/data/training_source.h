// Where the rows of a training task come from (TASKS.md 2.8).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/data/data_set.h"
#include "executors/data/table.h"

namespace flowmesh::data {

// `spec.data.jsonl`: the first of its candidates that can be had.
struct JsonlFile {
  struct Candidate {
    std::string path;      // the field
    std::string location;  // a path or a URL
  };
  std::string path;  // the block, for errors
  std::vector<Candidate> candidates;
  Headers headers;  // values are secret
  absl::Duration timeout = absl::Seconds(60);
};

// Rows that stand in the spec itself.
struct InlineRows {
  std::string path;  // the list
  Table rows;
};

struct TrainingSource {
  std::variant<InlineRows, JsonlFile, DataSet> from;
  std::optional<int64_t> max_samples;  // the first rows are kept

  bool is_jsonl() const { return std::holds_alternative<JsonlFile>(from); }
  bool is_inline() const { return std::holds_alternative<InlineRows>(from); }
};

// Reads `spec.data`; the inline list is `inline_key`, whose entries `read_row` turns into maps.
// No I/O. InvalidArgument names the field, and the known sources when there is none.
absl::StatusOr<TrainingSource> ReadTrainingSource(
    const Field& data, std::string_view inline_key,
    const std::function<absl::StatusOr<Json>(const Field& entry)>& read_row);

// At least one row. InvalidArgument and NotFound name the field, and for JSONL each candidate with
// its cause. Cancelled. Others: the network, the disk.
absl::StatusOr<Table> LoadTrainingSource(const TrainingSource& source, const DataContext& context);

}  // namespace flowmesh::data
