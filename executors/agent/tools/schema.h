// Whether the arguments that a model writes fit a tool's JSON schema.
#pragma once

#include <string>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::agent {

// Checks `type` (one or several), `required`, `properties`, `additionalProperties: false`, `items`,
// `enum`, `minimum` and `maximum`; what else a schema says is left to the tool. InvalidArgument
// names the value by `path`: `query: required`, `count: expected an integer, got "two"`.
absl::Status CheckSchema(const Json& schema, const Json& value, const std::string& path);

}  // namespace flowmesh::agent
