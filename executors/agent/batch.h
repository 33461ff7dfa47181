// Many tasks for one assistant, several at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "executors/agent/assistant.h"

namespace flowmesh::agent {

struct BatchOptions {
  std::filesystem::path logs;  // gets `task_<n>.jsonl` of each task, n from 1
  std::filesystem::path
      workspaces;  // each task gets a folder in it, the only one the folder itself
  absl::Duration timeout = absl::InfiniteDuration();  // of each task
  int concurrency = 4;
  std::vector<std::string> secrets;
  // These are called from the calling thread only.
  std::function<bool()> is_stopped;
  std::function<void(size_t task, const std::string& line)> on_line;
  std::function<void(size_t task, const std::string& step, size_t finished)> on_step;
};

struct TaskEnd {
  absl::StatusOr<std::string> answer = absl::UnknownError("");
  double seconds = 0;
  ChatUsage usage;
  int64_t model_calls = 0;
};

// How each of `tasks` ended, in their order. Cancelled: is_stopped() said so. Others: the folders
// cannot be made.
absl::StatusOr<std::vector<TaskEnd>> RunBatch(const Assistant& assistant,
                                              const std::vector<std::string>& tasks,
                                              const BatchOptions& options);

}  // namespace flowmesh::agent
