// What the loading of data and documents may use of a task.
#pragma once

#include "common/env.h"
#include "executors/data/data_set.h"
#include "executors/retrieval/ingest.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// `context` must outlive the result, whose callbacks go to it.
data::DataContext DataContextOf(const TaskContext& context, const EnvLookup& env);

// Reports to the task, and says whether it is to go on. `context` must outlive it.
retrieval::OnIngest OnIngestOf(const TaskContext& context);

}  // namespace flowmesh::tasks
