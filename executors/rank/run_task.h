// Runs one task with the runner of its type and turns whatever happens, an exception included, into
// the one answer that the rank protocol asks for. Translates between its messages and the plain
// types of executors/tasks/task_runner.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "common/clock.h"
#include "executors/tasks/task_runner.h"
#include "flowmesh/v1/rank.pb.h"

namespace flowmesh::rank {

using TaskRunners = std::map<std::string, std::unique_ptr<tasks::TaskRunner>>;

struct TaskCallbacks {
  std::function<void(v1::FromRank)> send;  // progress and log lines, in order
  std::function<bool()> is_stopped;
  LogLevel log_level = LogLevel::kInfo;  // lines below it are not sent
};

// The answer: `finished` or `failed`. Never throws. Progress is thinned out to what a person can
// read: the first and last of a stage, and in between at most one every 50 ms.
v1::FromRank RunTask(const v1::ExecuteRequest& request, const TaskRunners& runners,
                     const TaskCallbacks& callbacks, const Clock& clock);

}  // namespace flowmesh::rank
