// Which tasks may travel in one envelope (PROTOCOL.md 12.5). Pure.
#pragma once

#include <string>

#include "common/json.h"

namespace flowmesh::orchestrator {

// Two documents may be merged when their keys are equal and not empty: `spec` with sorted keys,
// without `data`, the system prompt and `_upstreamResults`. Empty for task types that never merge.
std::string MergeKey(const Json& document);

}  // namespace flowmesh::orchestrator
