// What the orchestrator thinks of a task that an earlier life of the sidecar left behind
// (PROTOCOL.md 4.5): after a long outage it may have given the task to somebody else.
#pragma once

#include <functional>
#include <string>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// `<origin>/api/v1/tasks`, from the base URL or from a destination URL that ends in
// `/api/v1/results`; empty when neither is known.
std::string TasksUrl(const Json& document, const std::string& orchestrator_base_url);

// Why the task is not to be run here; empty when it is, and also when the answer cannot be
// understood. An error: nobody answers, or `is_cancelled` said so. The token is sent to the origin
// of the base URL only. Blocks for some seconds at most.
absl::StatusOr<std::string> WhyNotWanted(const std::string& tasks_url, const std::string& task_id,
                                         const std::string& worker_id,
                                         const std::string& orchestrator_base_url,
                                         const std::string& orchestrator_token,
                                         std::function<bool()> is_cancelled = nullptr);

}  // namespace flowmesh::sidecar
