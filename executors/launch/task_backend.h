// What runs the tasks that the executor server does not run itself: the seam between the server's
// core, which knows tasks and events, and the launcher, which knows processes.
#pragma once

#include <cstdint>
#include <functional>
#include <variant>

#include "common/json.h"
#include "executors/launch/cancel_signal.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::executor {

// How a task ended.
using TaskEnd = std::variant<v1::TaskFinished, v1::TaskFailed>;

// Where a running task's progress and log lines go. Called from one thread at a time, never after
// Run has returned.
struct TaskSink {
  std::function<void(v1::TaskProgress)> progress;
  std::function<void(v1::TaskLogLine)> log_line;
};

class TaskBackend {
 public:
  virtual ~TaskBackend() = default;

  // Runs one task to its end; blocks. All calls come from one thread, one at a time. `document` is
  // the parsed task.document_json. When `cancel` is raised the task ends in bounded time and none
  // of its processes is left at the return.
  virtual TaskEnd Run(const v1::ExecuteRequest& task, const Json& document, CancelSignal& cancel,
                      const TaskSink& sink) = 0;

  // Ends what is kept between tasks, as a warm model; blocks for a bounded time. Same thread as
  // Run, which may be called again.
  virtual void Release() = 0;

  // Resident memory of all processes together, sampled now; 0 without any. Any thread.
  virtual uint64_t ResidentBytes() const = 0;
};

}  // namespace flowmesh::executor
