// What the loading of data may use of a task.
#pragma once

#include "common/env.h"
#include "executors/data/data_set.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// `context` must outlive the result, whose callbacks go to it.
data::DataContext DataContextOf(const TaskContext& context, const EnvLookup& env);

}  // namespace flowmesh::tasks
