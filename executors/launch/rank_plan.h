// How many ranks a task gets, and which devices (TASKS.md 6).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::executor {

struct RankPlan {
  int ranks = 1;  // here; as many on each other node
  bool use_cuda = false;
  std::vector<std::string> devices;  // UUIDs of the GPUs that the ranks see; empty: none
  // A group that trains serves one task, and may be started again after the death of a rank.
  bool is_training = false;
  int max_restarts = 0;
};

// The place among `uuids` of the GPU that `entry` names: by its place, or by the beginning of its
// UUID and no other's.
std::optional<size_t> FindGpu(std::string_view entry, const std::vector<std::string>& uuids);

// The plan of `document`'s task on a worker with these GPUs (UUIDs). Inference gets one rank that
// owns all of them. InvalidArgument names the field of spec.training, or the number of GPUs, that
// is wrong.
absl::StatusOr<RankPlan> PlanRanks(const Json& document, const std::vector<std::string>& gpus);

}  // namespace flowmesh::executor
