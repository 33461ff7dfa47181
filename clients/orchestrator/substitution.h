// `${stage.path}` placeholders and `spec._upstreamResults` (PROTOCOL.md 12.4). Pure.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

// What one stage of a submission offers to the others.
struct Stage {
  std::string task_id;
  bool done = false;
  // The stored document `{task_id, worker_id, metadata, received_at, result}`, or a bare result
  // from shared storage; null (the JSON value) when there is none.
  Json stored;
};

using StageMap = std::map<std::string, Stage>;  // by stage name

// The document of stage `self` with every placeholder filled, metadata included, keys excepted, and
// `spec._upstreamResults` set when another stage is done.
// InvalidArgument: a reference that can never be filled; the task fails for good.
// Unavailable: a stage that is not done, or a done one without a stored result; try again later.
absl::StatusOr<Json> RenderDocument(const Json& document, std::string_view self,
                                    const StageMap& stages);

// A value in Python's str() form, as it stands inside a longer string: `True`, `1.0`, `{'a':
// None}`.
std::string PythonText(const Json& value);

}  // namespace flowmesh::orchestrator
