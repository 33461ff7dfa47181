// What a worker writes into Redis: the transactions and events of PROTOCOL.md sections 2, 3 and 5,
// as pure functions of what the sidecar knows.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/redis/reply.h"

namespace flowmesh::sidecar {

inline constexpr char kWorkerEvents[] = "workers.events";
inline constexpr char kTaskEvents[] = "tasks.events";

// The status that Redis shows. kStarting: not able to take work.
enum class WorkerStatus { kStarting, kIdle, kRunning, kStopping };

// `STARTING`, `IDLE`, `RUNNING`, `STOPPING`.
std::string_view ToText(WorkerStatus status);

// The true status of 5.5: a pure function of what is known.
struct WorkerCondition {
  bool draining = false;
  bool subscribed = false;  // the subscription is proven alive; true without Redis
  bool can_work = false;    // the executor is connected and serving
  bool has_work = false;    // a task runs, waits, or is being delivered or announced
};
WorkerStatus TrueStatus(const WorkerCondition& condition);

// What a worker says of itself when it registers.
struct Registration {
  std::string worker_id;
  std::string instance_id;  // 32 hex digits, new for each process start
  absl::Time started_at;
  int pid = 0;
  std::vector<std::string> tags;
  double cost_per_hour = 1.0;
  Json hardware;  // 2.4
};

// Each returns the commands of one MULTI/EXEC.
std::vector<redis::Command> RegisterCommands(const Registration& registration, WorkerStatus status,
                                             const Json& power, absl::Time now);
// `extra_field` is `extra_task_id` or `extra_last_task`, or empty.
std::vector<redis::Command> StatusCommands(const std::string& worker_id, WorkerStatus status,
                                           const Json& payload, const std::string& extra_field,
                                           const std::string& extra_value, absl::Time now);
std::vector<redis::Command> HeartbeatCommands(const std::string& worker_id, WorkerStatus status,
                                              absl::Duration interval, const Json& metrics,
                                              absl::Time now);
std::vector<redis::Command> UnregisterCommands(const Registration& registration,
                                               absl::Duration uptime, const Json& power_summary,
                                               absl::Time now);

// The `metrics` of a beat (section 3), its power parts aside.
double AccruedCost(double cost_per_hour, absl::Duration uptime);

// What the events of a task repeat.
struct TaskTimes {
  std::optional<std::string> task_type;
  std::optional<std::string> dispatched_at;  // verbatim
  absl::Time started_at;
};

std::string TaskStartedEvent(const std::string& worker_id, const std::string& task_id,
                             const TaskTimes& times, absl::Time now);
// `error` empty: TASK_SUCCEEDED. `details` is merged into the payload.
std::string TaskEndedEvent(const std::string& worker_id, const std::string& task_id,
                           const TaskTimes& times, const std::string& error, const Json& details,
                           absl::Time finished_at, absl::Duration runtime, absl::Time now);

}  // namespace flowmesh::sidecar
