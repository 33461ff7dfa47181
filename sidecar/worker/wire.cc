#include "sidecar/worker/wire.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

constexpr size_t kMaxErrorBytes = 8 << 10;

std::string HashKey(const std::string& worker_id) { return absl::StrCat("worker:", worker_id); }
std::string BeatKey(const std::string& worker_id) {
  return absl::StrCat("worker:", worker_id, ":hb");
}

Json WorkerEvent(const char* type, const std::string& worker_id, absl::Time now) {
  return {{"type", type},
          {"ts", FormatTimestamp(now)},
          {"worker_id", worker_id},
          {"status", nullptr},
          {"tags", nullptr},
          {"metrics", Json::object()},
          {"payload", Json::object()}};
}

Json TaskEvent(const char* type, const std::string& worker_id, const std::string& task_id,
               absl::Time now) {
  return {{"type", type},
          {"ts", FormatTimestamp(now)},
          {"worker_id", worker_id},
          {"task_id", task_id},
          {"status", nullptr},
          {"error", nullptr},
          {"payload", Json::object()}};
}

redis::Command Publish(const Json& event) { return {"PUBLISH", kWorkerEvents, DumpJson(event)}; }

}  // namespace

std::string_view ToText(WorkerStatus status) {
  switch (status) {
    case WorkerStatus::kStarting:
      return "STARTING";
    case WorkerStatus::kIdle:
      return "IDLE";
    case WorkerStatus::kRunning:
      return "RUNNING";
    case WorkerStatus::kStopping:
      break;
  }
  return "STOPPING";
}

WorkerStatus TrueStatus(const WorkerCondition& condition) {
  if (condition.draining) return WorkerStatus::kStopping;
  if (!condition.subscribed || !condition.can_work) return WorkerStatus::kStarting;
  return condition.has_work ? WorkerStatus::kRunning : WorkerStatus::kIdle;
}

std::vector<redis::Command> RegisterCommands(const Registration& registration, WorkerStatus status,
                                             const Json& power, absl::Time now) {
  const std::string& id = registration.worker_id;
  const std::string shown(ToText(status));
  Json event = WorkerEvent("REGISTER", id, now);
  event["status"] = shown;
  event["tags"] = registration.tags;
  event["payload"] = {{"env", Json::object()},
                      {"hardware", registration.hardware},
                      {"cost_per_hour", registration.cost_per_hour},
                      {"power_metrics", power}};
  return {{"SADD", "workers:ids", id},
          {"HSET",          HashKey(id),
           "worker_id",     id,
           "status",        shown,
           "started_at",    FormatTimestamp(registration.started_at),
           "pid",           absl::StrCat(registration.pid),
           "env_json",      "{}",
           "hardware_json", DumpJson(registration.hardware),
           "tags_json",     DumpJson(registration.tags),
           "last_seen",     FormatTimestamp(now),
           "cost_per_hour", PythonFloat(registration.cost_per_hour),
           "instance_id",   registration.instance_id},
          {"HDEL", HashKey(id), "extra_task_id", "extra_last_task"},
          Publish(event)};
}

std::vector<redis::Command> StatusCommands(const std::string& worker_id, WorkerStatus status,
                                           const Json& payload, const std::string& extra_field,
                                           const std::string& extra_value, absl::Time now) {
  const std::string shown(ToText(status));
  redis::Command set = {"HSET", HashKey(worker_id), "status",
                        shown,  "last_seen",        FormatTimestamp(now)};
  if (!extra_field.empty()) {
    set.push_back(extra_field);
    set.push_back(extra_value);
  }
  Json event = WorkerEvent("STATUS", worker_id, now);
  event["status"] = shown;
  event["payload"] = payload;
  return {std::move(set), Publish(event)};
}

std::vector<redis::Command> HeartbeatCommands(const std::string& worker_id, WorkerStatus status,
                                              absl::Duration interval, const Json& metrics,
                                              absl::Time now) {
  const int64_t ttl = std::max<int64_t>(4 * absl::ToInt64Seconds(interval), 120);
  const std::string time = FormatTimestamp(now);
  Json event = WorkerEvent("HEARTBEAT", worker_id, now);
  event["metrics"] = metrics;
  return {{"SETEX", BeatKey(worker_id), absl::StrCat(ttl), time},
          {"HSET", HashKey(worker_id), "last_seen", time, "status", std::string(ToText(status))},
          Publish(event)};
}

std::vector<redis::Command> UnregisterCommands(const Registration& registration,
                                               absl::Duration uptime, const Json& power_summary,
                                               absl::Time now) {
  const std::string& id = registration.worker_id;
  Json event = WorkerEvent("UNREGISTER", id, now);
  event["payload"] = {{"cost_per_hour", registration.cost_per_hour},
                      {"uptime_sec", absl::ToDoubleSeconds(uptime)},
                      {"accrued_cost_usd", AccruedCost(registration.cost_per_hour, uptime)},
                      {"power_summary", power_summary}};
  return {{"SREM", "workers:ids", id}, {"DEL", HashKey(id)}, {"DEL", BeatKey(id)}, Publish(event)};
}

double AccruedCost(double cost_per_hour, absl::Duration uptime) {
  return cost_per_hour / 3600 * absl::ToDoubleSeconds(uptime);
}

std::string TaskStartedEvent(const std::string& worker_id, const std::string& task_id,
                             const TaskTimes& times, absl::Time now) {
  Json event = TaskEvent("TASK_STARTED", worker_id, task_id, now);
  Json& payload = event["payload"];
  if (times.task_type) payload["taskType"] = *times.task_type;
  if (times.dispatched_at) payload["dispatched_at"] = *times.dispatched_at;
  payload["started_at"] = FormatTimestamp(times.started_at);
  return DumpJson(event);
}

std::string TaskEndedEvent(const std::string& worker_id, const std::string& task_id,
                           const TaskTimes& times, const std::string& error, const Json& details,
                           absl::Time finished_at, absl::Duration runtime, absl::Time now) {
  Json event = TaskEvent(error.empty() ? "TASK_SUCCEEDED" : "TASK_FAILED", worker_id, task_id, now);
  if (!error.empty()) event["error"] = CutUtf8(error, kMaxErrorBytes);
  Json& payload = event["payload"];
  payload["taskType"] = times.task_type ? Json(*times.task_type) : Json();
  payload["runtime_sec"] = absl::ToDoubleSeconds(runtime);
  payload["started_at"] = FormatTimestamp(times.started_at);
  payload["finished_at"] = FormatTimestamp(finished_at);
  if (times.dispatched_at) payload["dispatched_at"] = *times.dispatched_at;
  payload.update(details);
  return DumpJson(event);
}

}  // namespace flowmesh::sidecar
