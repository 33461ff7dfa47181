// A team at work on one task: a planner gives out steps, workers do them one after the other, a
// reporter writes the answer.
#pragma once

#include <string>
#include <vector>

#include "executors/agent/loop.h"

namespace flowmesh::agent {

struct TeamWorker {
  Agent agent;  // its name is the worker's
  std::string description;
};

struct Team {
  Agent planner, reporter;  // without tools of their own, or with
  std::vector<TeamWorker> workers;
  int max_steps = 8;
};

// The reporter's answer. A step that fails by itself is reported as failed to those that come
// after; the errors are RunAgent's otherwise. A planner that makes no plan leaves the whole task to
// the first worker.
absl::StatusOr<std::string> RunTeam(const Team& team, const std::string& task,
                                    const RunContext& context);

}  // namespace flowmesh::agent
