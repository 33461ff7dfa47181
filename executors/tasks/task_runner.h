// What a rank does with one task: the seam between the rank process, which speaks protobuf frames,
// and the task types, which speak JSON and libtorch. No protobuf header may be included beside a
// torch header (the wheel ships an older protobuf), so everything here is plain.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/log_level.h"
#include "common/status.h"

namespace flowmesh::tasks {

struct Progress {
  std::string stage;  // `loading model`, `generating`
  uint64_t done = 0;
  uint64_t total = 0;            // 0: unknown
  std::string unit;              // `items`, `bytes`
  double tokens_per_second = 0;  // 0: not applicable
  std::optional<double> loss;    // of a training's last step
};

// One task as the executor handed it in. Read-only during the run; the callbacks may be called from
// the running thread only.
struct TaskContext {
  std::string task_id;
  Json document;                                            // TASKS.md 1.1
  std::filesystem::path task_dir;                           // absolute
  std::map<std::string, std::filesystem::path> child_dirs;  // by child task id
  std::filesystem::path results_dir;
  std::string orchestrator_base_url;
  std::string orchestrator_token;  // secret

  std::function<void(const Progress&)> on_progress;
  std::function<void(LogLevel, const std::string&)> on_log;  // also goes to logs/task.log
  std::function<bool()> is_stopped;                          // polled between steps
  // What responses.json is to hold if the run fails (TASKS.md 3.3).
  std::function<void(Json record)> on_failure_record;
};

// A file that delivery has to upload (proto OutputFile).
struct OutputFile {
  enum class Kind { kJsonlExport, kFinalModel, kFinalLora };
  Kind kind = Kind::kJsonlExport;
  std::string task_id;
  std::filesystem::path path;
};

struct TaskOutcome {
  Json result;
  std::vector<OutputFile> outputs;
};

// Lives as long as the rank, so that a runner may keep a model warm. One task at a time.
class TaskRunner {
 public:
  virtual ~TaskRunner() = default;

  // InvalidArgument: the spec (the message names the field). Cancelled: is_stopped() said so.
  // Others: the task's own failure. Throws what libtorch and the standard library throw (out of
  // memory); the runner is as good as before then.
  virtual absl::StatusOr<TaskOutcome> Run(const TaskContext& context) = 0;
};

// Runners of all task types that a rank can run, by task type in lower case.
struct RankOptions {
  bool use_cuda = false;  // else the CPU
  int threads = 0;        // CPU threads; 0: all
  int local_rank = 0;     // which of the visible GPUs is this rank's
};
std::map<std::string, std::unique_ptr<TaskRunner>> MakeTaskRunners(const RankOptions& options);

// `2.11.0`.
std::string TorchVersion();

}  // namespace flowmesh::tasks
