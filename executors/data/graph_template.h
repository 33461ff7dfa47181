// `spec.data.type: graph_template`: one prompt made of the results of earlier stages
// (TASKS.md 2.5).
#pragma once

#include <string>

#include "common/field.h"
#include "common/status.h"

namespace flowmesh::data {

// `data`: the block `spec.data`; `upstream`: `spec._upstreamResults`. InvalidArgument names the
// field, and the column's label where an expression gives nothing.
absl::StatusOr<std::string> RenderGraphTemplate(const Field& data, const Field& upstream);

}  // namespace flowmesh::data
