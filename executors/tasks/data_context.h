// What the loading of data and documents may use of a task.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "common/env.h"
#include "executors/data/data_set.h"
#include "executors/retrieval/ingest.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// `context` must outlive the result, whose callbacks go to it; so below.
data::DataContext DataContextOf(const TaskContext& context, const EnvLookup& env);

// What a task's log, and whoever watches the task, get as warnings.
std::function<void(const std::string&)> WarnTo(const TaskContext& context);

// Reports how much of a file has come.
std::function<void(const std::string& file, uint64_t done, uint64_t total)> OnDownloadOf(
    const TaskContext& context);

// Reports to the task, and says whether it is to go on.
retrieval::OnIngest OnIngestOf(const TaskContext& context);

}  // namespace flowmesh::tasks
