#include "sidecar/worker/presence.h"

#include <iterator>
#include <utility>

#include "sidecar/hardware/host.h"

namespace flowmesh::sidecar {
namespace {

// When the status in Redis is compared after a terminal event (PROTOCOL.md 5.5).
constexpr absl::Duration kChecks[] = {absl::Milliseconds(300), absl::Seconds(2)};

}  // namespace

Presence::Presence(Registration registration, absl::Duration heartbeat_interval,
                   absl::Duration process_start, Parts parts, std::function<WorkNow()> work)
    : heartbeat_interval_(heartbeat_interval),
      process_start_(process_start),
      parts_(parts),
      work_(std::move(work)),
      registration_(std::move(registration)),
      last_beat_ns_(absl::ToInt64Nanoseconds(process_start)) {}

WorkerStatus Presence::TrueStatusLocked(const WorkNow& work) const {
  return TrueStatus({.draining = draining_,
                     .subscribed = subscribed_,
                     .can_work = work.can_work,
                     .has_work = work.has_work});
}

WorkerStatus Presence::true_status() const {
  absl::MutexLock lock(&mutex_);
  return TrueStatusLocked(work_());
}

// --- Status --------------------------------------------------------------------------------------

void Presence::WriteLocked(const WorkNow& work, std::vector<redis::Command> and_then) {
  if (!registered_ || stopped_) return;
  const WorkerStatus status = TrueStatusLocked(work);
  Json payload = Json::object();
  std::string field, value;
  if (status == WorkerStatus::kRunning && !work.running_task.empty()) {
    payload["task_id"] = value = work.running_task;
    field = "extra_task_id";
  } else if (status == WorkerStatus::kIdle && !work.last_task.empty()) {
    payload["last_task"] = value = work.last_task;
    field = "extra_last_task";
  }
  std::vector<redis::Command> commands =
      StatusCommands(registration_.worker_id, status, payload, field, value, parts_.clock.Now());
  std::move(and_then.begin(), and_then.end(), std::back_inserter(commands));
  status_due_ = false;
  parts_.publisher.Transaction(std::move(commands), [this, status](const absl::Status& sent) {
    if (sent.ok()) {
      written_ = status;
    } else {
      status_due_ = true;
    }
  });
  shown_ = status;
}

void Presence::UpdateLocked() {
  const WorkNow work = work_();
  if (status_due_ || TrueStatusLocked(work) != shown_) WriteLocked(work);
}

void Presence::Update() {
  absl::MutexLock lock(&mutex_);
  UpdateLocked();
}

void Presence::Write(std::vector<redis::Command> and_then) {
  absl::MutexLock lock(&mutex_);
  WriteLocked(work_(), std::move(and_then));
}

void Presence::OnForeignStatus(const std::string& status) {
  absl::MutexLock lock(&mutex_);
  const WorkNow work = work_();
  if (status == ToText(TrueStatusLocked(work))) return;
  // It announces work that has not been told of as done yet: the status follows by itself.
  if (status == ToText(WorkerStatus::kRunning) && work.is_untold) return;
  WriteLocked(work);
}

void Presence::SetSubscribed(bool subscribed) {
  absl::MutexLock lock(&mutex_);
  subscribed_ = subscribed;
  UpdateLocked();
}

void Presence::SetDraining() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  UpdateLocked();
}

void Presence::CheckLater() {
  bool sooner = false;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = parts_.clock.Monotonic();
    sooner = checks_.empty() || checks_.front() > now + kChecks[0];
    checks_.clear();
    for (const absl::Duration delay : kChecks) checks_.push_back(now + delay);
    UpdateLocked();
  }
  if (sooner) on_sooner_();
}

std::optional<absl::Duration> Presence::next_check() const {
  absl::MutexLock lock(&mutex_);
  if (checks_.empty()) return std::nullopt;
  return checks_.front();
}

void Presence::ClearChecksUntil(absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  while (!checks_.empty() && checks_.front() <= now) checks_.pop_front();
}

// --- Registration --------------------------------------------------------------------------------

void Presence::RegisterLocked(WorkerStatus status, const char* reason) {
  parts_.publisher.Register(RegisterCommands(registration_, status, power_, parts_.clock.Now()),
                            [this, status, version = wanted_](const absl::Status& sent) {
                              if (!sent.ok()) return;
                              taken_ = version;
                              written_ = status;
                            });
  parts_.metrics.CountRegistration(reason);
  shown_ = status;
  beat_due_ = true;
}

void Presence::Register() {
  absl::MutexLock lock(&mutex_);
  registered_ = true;
  RegisterLocked(WorkerStatus::kStarting, "start");
  BeatLocked();
  UpdateLocked();
}

void Presence::RegisterAgain(const char* reason) {
  absl::MutexLock lock(&mutex_);
  if (!registered_) return;
  RegisterLocked(TrueStatusLocked(work_()), reason);
  status_due_ = true;
}

bool Presence::registered() const {
  absl::MutexLock lock(&mutex_);
  return registered_;
}

bool Presence::registration_due() const {
  absl::MutexLock lock(&mutex_);
  return registered_ && taken_ < wanted_;
}

void Presence::Unregister(absl::Duration uptime, const Json& power_summary,
                          std::function<void(const absl::Status&)> done) {
  absl::MutexLock lock(&mutex_);
  registered_ = false;
  parts_.publisher.Transaction(
      UnregisterCommands(registration_, uptime, power_summary, parts_.clock.Now()),
      std::move(done));
}

void Presence::SetHardware(Json hardware) {
  absl::MutexLock lock(&mutex_);
  registration_.hardware = std::move(hardware);
  ++wanted_;
}

Json Presence::hardware() const {
  absl::MutexLock lock(&mutex_);
  return registration_.hardware;
}

// --- Heartbeats ----------------------------------------------------------------------------------

void Presence::SetBeatMetrics(Json metrics, Json power) {
  absl::MutexLock lock(&mutex_);
  beat_metrics_ = std::move(metrics);
  power_ = std::move(power);
}

void Presence::Beat() {
  absl::MutexLock lock(&mutex_);
  if (registered_) BeatLocked();
}

void Presence::BeatIfDue() {
  absl::MutexLock lock(&mutex_);
  if (registered_ && beat_due_) BeatLocked();
}

void Presence::BeatLocked() {
  beat_due_ = false;
  const WorkNow work = work_();
  const absl::Duration uptime = parts_.clock.Monotonic() - process_start_;
  Json metrics = {{"uptime_sec", absl::ToDoubleSeconds(uptime)},
                  {"accrued_cost_usd", AccruedCost(registration_.cost_per_hour, uptime)}};
  if (std::optional<Json> load = LoadAverages()) metrics["loadavg"] = *std::move(load);
  metrics.update(beat_metrics_);
  metrics["worker"] = {{"queue_depth", work.queue_depth}};
  const WorkerStatus status = TrueStatusLocked(work);
  parts_.publisher.Transaction(HeartbeatCommands(registration_.worker_id, status,
                                                 heartbeat_interval_, metrics, parts_.clock.Now()),
                               [this, status](const absl::Status& sent) {
                                 parts_.metrics.CountBeat(sent.ok());
                                 if (!sent.ok()) {
                                   beat_due_ = true;
                                   return;
                                 }
                                 written_ = status;
                                 last_beat_ns_ = absl::ToInt64Nanoseconds(parts_.clock.Monotonic());
                               });
}

absl::Duration Presence::beat_age() const {
  return parts_.clock.Monotonic() - absl::Nanoseconds(last_beat_ns_.load());
}

void Presence::Stop() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
}

}  // namespace flowmesh::sidecar
