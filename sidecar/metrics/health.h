// What works and what does not, as a tree: a part is ready when it has nothing to complain of and
// all of its own parts are ready. The root is the sidecar; below it Redis, the journal and each
// executor, and below an executor the task on its ranks.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::sidecar {

struct HealthPart {
  std::string name;
  std::string problem;  // why it is not ready by itself; empty: it is
  std::string detail;   // worth knowing either way; may be empty
  std::vector<HealthPart> parts;

  bool ready() const;
  // The first problem with the names on its way, `executor e0: not available`; empty when ready.
  std::string Why() const;
  // {"name", "ready", "reason" unless ready, "detail" and "parts" unless empty}.
  Json ToJson() const;
};

// A running task: `progress` may be empty, and `silent` is the time since its executor last said
// anything of it. Half an hour of silence is a problem.
HealthPart HealthOfTask(const std::string& task_id, absl::Duration silent,
                        const v1::TaskProgress& progress);

}  // namespace flowmesh::sidecar
