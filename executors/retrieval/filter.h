// Conditions on the metadata of passages.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::retrieval {

// By key of the metadata: the wanted value, a list of which one is wanted, or a map of bounds
// (`gte`, `gt`, `lte`, `lt`). All must hold. InvalidArgument, behind `path`: not of that form.
absl::Status CheckFilter(const Json& filter, const std::string& path);

// For SQLite, over a column `metadata` of JSON.
struct SqlCondition {
  std::string text;          // with parameters ?1, ?2, ...
  std::vector<Json> values;  // of the parameters
};

// `filter`: as CheckFilter has found right, and not empty.
SqlCondition ToSql(const Json& filter);

}  // namespace flowmesh::retrieval
