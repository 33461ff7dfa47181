// Expands one submitted document into its tasks: a lone task, stages or a graph (PROTOCOL.md 12.3).
// Pure: no ids are made and nothing is looked up.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

// One task of a submission before it has a record.
struct PlannedTask {
  std::string name;                    // of the stage or node; empty for a lone task
  Json document;                       // what the worker will get, placeholders still in it
  std::vector<size_t> after;           // places in the plan, each smaller than the own place
  std::vector<std::string> after_ids;  // ids of tasks of earlier submissions
};

// The tasks of a document in dependency order. InvalidArgument with the field's path when the
// structure is wrong: the root or `spec` is no map, stages together with a graph, a doubled name,
// a dependency on a later stage or on itself, a cycle.
absl::StatusOr<std::vector<PlannedTask>> PlanSubmission(const Json& document);

// The paths of keys beside `spec`, of a document and of its stages and nodes, that nobody reads:
// `taskType`, `spec.stages[1].depends_on`.
std::vector<std::string> UnreadKeys(const Json& document);

// `over` laid on `base`: maps merge, all else replaces.
void DeepMerge(Json& base, const Json& over);

}  // namespace flowmesh::orchestrator
