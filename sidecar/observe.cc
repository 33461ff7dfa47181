// What operators see of a sidecar: its health as a tree, and its metrics of the moment.
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/redact.h"
#include "common/strings.h"
#include "sidecar/sidecar.h"

namespace flowmesh::sidecar {
namespace {

constexpr redis::State kRedisStates[] = {
    redis::State::kConnecting, redis::State::kReady,         redis::State::kLost,
    redis::State::kNoAuth,     redis::State::kWrongPassword, redis::State::kNoPermission,
    redis::State::kLoading,    redis::State::kReadOnly,      redis::State::kMasterDown};
constexpr WorkerStatus kStatuses[] = {WorkerStatus::kStarting, WorkerStatus::kIdle,
                                      WorkerStatus::kRunning, WorkerStatus::kStopping};

using Labels = std::vector<std::pair<std::string, std::string>>;

void AddGauge(std::vector<Sample>& samples, const char* name, const char* help, double value,
              Labels labels = {}) {
  samples.push_back({name, help, /*counter=*/false, std::move(labels), value});
}

void AddCounter(std::vector<Sample>& samples, const char* name, const char* help, double value,
                Labels labels = {}) {
  samples.push_back({name, help, /*counter=*/true, std::move(labels), value});
}

uint64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0, resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

HealthPart HealthOf(const Worker& worker, const TaskTable& tasks) {
  const ExecutorLink& link = worker.executor();
  HealthPart part{.name = absl::StrCat("executor ", link.name())};
  if (!link.available()) part.problem = "not available";
  const std::optional<Worker::Activity> activity = worker.activity();
  if (!activity) return part;
  const std::optional<v1::TaskRecord> record = tasks.Find(activity->task_id);
  part.parts.push_back(HealthOfTask(activity->task_id, activity->silent,
                                    record ? record->progress() : v1::TaskProgress()));
  return part;
}

void AddWorker(std::vector<Sample>& samples, const Worker& worker) {
  const Labels labels = {{"worker", worker.id()}};
  AddGauge(samples, "flowmesh_queue_depth", "Tasks that wait",
           static_cast<double>(worker.queue_depth()), labels);
  const WorkerStatus status = worker.presence().written_status();
  for (const WorkerStatus each : kStatuses) {
    AddGauge(samples, "flowmesh_worker_status",
             "1 for the status that Redis was given last, 0 for others", status == each ? 1 : 0,
             {{"worker", worker.id()}, {"status", std::string(ToText(each))}});
  }
  AddGauge(samples, "flowmesh_heartbeat_age_seconds", "Since Redis took the last heartbeat",
           absl::ToDoubleSeconds(worker.presence().beat_age()), labels);
  const std::optional<Worker::Activity> activity = worker.activity();
  AddGauge(samples, "flowmesh_task_silence_seconds",
           "Since the last sign of the running task; 0 without one",
           activity ? absl::ToDoubleSeconds(activity->silent) : 0, labels);
}

void AddExecutor(std::vector<Sample>& samples, const ExecutorLink& link) {
  const Labels labels = {{"executor", link.name()}};
  AddGauge(samples, "flowmesh_executor_available", "1 while the executor can take work",
           link.available() ? 1 : 0, labels);
  AddCounter(samples, "flowmesh_executor_disconnects_total", "Times an executor was lost",
             static_cast<double>(link.disconnects()), labels);
  if (const auto description = link.description()) {
    AddGauge(samples, "flowmesh_executor_version_info", "Always 1; the version is a label", 1,
             {{"executor", link.name()}, {"version", description->version()}});
  }
}

void AddPower(std::vector<Sample>& samples, const std::string& worker, const Json& latest) {
  if (!latest.is_object()) return;
  const auto add = [&](const char* source, const Json& watts) {
    if (!watts.is_number()) return;
    AddGauge(samples, "flowmesh_power_watts",
             "Power draw of the machine's processor and of the worker's GPUs", watts.get<double>(),
             {{"worker", worker}, {"source", source}});
  };
  add("cpu", latest["cpu_watts"]);
  add("gpu", latest["gpu_watts"]["total"]);
}

}  // namespace

std::string Sidecar::RedisState() const {
  if (!redis_) return "none";
  return redis_->state() == redis::State::kReady ? "connected" : "disconnected";
}

// --- Health --------------------------------------------------------------------------------------

HealthPart Sidecar::Health() const {
  HealthPart root{.name = "sidecar"};
  {
    absl::MutexLock lock(&mutex_);
    if (StopLocked()) root.problem = "stopping";
  }
  if (redis_) {
    const std::string state(redis::ToText(redis_->state()));
    HealthPart redis{.name = "redis", .detail = state};
    if (redis_->state() != redis::State::kReady) {
      redis.problem = state;
    } else if (!subscribed_) {
      redis.problem = "the subscription is not confirmed";
    }
    root.parts.push_back(std::move(redis));
  }
  for (const auto& worker : workers_) root.parts.push_back(HealthOf(*worker, tasks_));
  return root;
}

// --- Metrics -------------------------------------------------------------------------------------

std::string Sidecar::MetricsText() const {
  std::vector<Sample> samples;
  SampleProcess(samples);
  SampleWorkers(samples);
  SampleRedis(samples);
  SampleJournal(samples);
  return metrics_.Text(samples);
}

void Sidecar::SampleProcess(std::vector<Sample>& samples) const {
  AddGauge(samples, "flowmesh_process_resident_bytes", "Resident memory of the sidecar",
           static_cast<double>(ResidentBytes()));
  AddGauge(samples, "flowmesh_process_start_time_seconds", "Unix time of the start",
           absl::ToDoubleSeconds(started_wall_ - absl::UnixEpoch()));
  AddGauge(samples, "flowmesh_wall_clock_offset_seconds",
           "By how much the wall clock was stepped since the start",
           absl::ToDoubleSeconds(clock_.Now() - started_wall_ - uptime()));
  AddGauge(samples, "flowmesh_heartbeat_interval_seconds", "Time between two heartbeats",
           absl::ToDoubleSeconds(config_.heartbeat_interval));
  AddCounter(samples, "flowmesh_secrets_blanked_total",
             "Texts of others that held a secret, which was blanked out",
             static_cast<double>(TextsBlanked()));
  if (config_.bandwidth) {
    AddGauge(samples, "flowmesh_delivery_limit_bytes_per_second",
             "Rate that all sending together keeps", *config_.bandwidth);
  }
}

void Sidecar::SampleWorkers(std::vector<Sample>& samples) const {
  for (const auto& worker : workers_) {
    AddWorker(samples, *worker);
    AddExecutor(samples, worker->executor());
    absl::MutexLock lock(&mutex_);
    const auto meter = meters_.find(worker->id());
    if (meter != meters_.end()) AddPower(samples, worker->id(), meter->second.latest());
  }
}

void Sidecar::SampleRedis(std::vector<Sample>& samples) const {
  absl::Duration deaf;
  uint64_t losses = 0;
  {
    absl::MutexLock lock(&mutex_);
    losses = subscription_losses_;
    deaf = deaf_ + (deaf_since_ ? clock_.Monotonic() - *deaf_since_ : absl::ZeroDuration());
  }
  AddGauge(samples, "flowmesh_subscription_alive", "1 while tasks can be heard",
           subscribed_ ? 1 : 0);
  AddCounter(samples, "flowmesh_subscription_losses_total",
             "Times the subscription was lost: tasks may have been missed",
             static_cast<double>(losses));
  AddCounter(samples, "flowmesh_deaf_seconds_total", "Time without the subscription",
             absl::ToDoubleSeconds(deaf));
  AddGauge(samples, "flowmesh_terminal_events_pending", "Ends of tasks that nobody has received",
           static_cast<double>(announcer_->pending()));
  AddCounter(samples, "flowmesh_terminal_event_retries_total",
             "Publications of an end that nobody received",
             static_cast<double>(announcer_->retries()));
  AddCounter(samples, "flowmesh_terminal_events_given_up_total", "Ends of tasks that were given up",
             static_cast<double>(announcer_->given_up()));
  if (!redis_) return;
  const redis::State state = redis_->state();
  for (const redis::State each : kRedisStates) {
    AddGauge(samples, "flowmesh_redis_state", "1 for the state that is true, 0 for others",
             state == each ? 1 : 0, {{"state", std::string(redis::ToText(each))}});
  }
  AddCounter(samples, "flowmesh_redis_reconnects_total", "Connections that were lost",
             static_cast<double>(redis_->reconnects()));
}

void Sidecar::SampleJournal(std::vector<Sample>& samples) const {
  const JournalStats stats = journal_->stats();
  const auto gauge = [&](const char* name, const char* help, uint64_t value) {
    AddGauge(samples, name, help, static_cast<double>(value));
  };
  gauge("flowmesh_journal_open_tasks", "Accepted tasks whose end is not told", stats.open_tasks);
  gauge("flowmesh_journal_open_bytes", "Their documents and results: the spool", stats.open_bytes);
  gauge("flowmesh_journal_open_limit_bytes", "What the spool takes before tasks are refused",
        workers_.front()->max_spool_bytes());
  gauge("flowmesh_journal_kept_tasks", "Told tasks that are kept", stats.closed_tasks);
  gauge("flowmesh_journal_kept_bytes", "Their results", stats.closed_bytes);
  AddCounter(samples, "flowmesh_journal_commits_total", "Commits",
             static_cast<double>(stats.commits));
  AddCounter(samples, "flowmesh_journal_failures_total", "Writes that did not reach the disk",
             static_cast<double>(stats.failures));
}

}  // namespace flowmesh::sidecar
