// Which rows of a data set a spec takes, and in which order (TASKS.md 2.7, 2.12).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/field.h"
#include "common/status.h"

namespace flowmesh::data {

// One part of `train[:80%]+test`.
struct SplitPart {
  std::string name;
  std::optional<int64_t> from, to;  // negative: from the end
  bool percent = false;

  friend bool operator==(const SplitPart&, const SplitPart&) = default;
};

struct Range {
  size_t begin = 0, end = 0;  // end not included

  friend bool operator==(const Range&, const Range&) = default;
};

// InvalidArgument says which part is wrong, and how a split is written; without a field's path.
absl::StatusOr<std::vector<SplitPart>> ParseSplit(std::string_view text);

// The rows of a split of `rows` rows that the part takes.
Range Slice(const SplitPart& part, size_t rows);

// `spec.shard`.
struct Shard {
  int64_t index = 0, total = 1;
  bool contiguous = true;
};
absl::StatusOr<Shard> ReadShard(const Field& spec);

// The places of `rows` rows that belong to the shard, in their order.
std::vector<size_t> ShardRows(const Shard& shard, size_t rows);

// The order in which `rows` rows stand after a shuffle: the one of numpy's
// `default_rng(seed).permutation(rows)`, on every machine.
std::vector<size_t> Permutation(uint64_t seed, size_t rows);

}  // namespace flowmesh::data
