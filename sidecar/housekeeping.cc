// What a sidecar does from time to time: it compares Redis with what it knows of its workers and
// mends it, sends heartbeats, and reads the sensors.
#include <algorithm>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "sidecar/sidecar.h"

namespace flowmesh::sidecar {
namespace {

constexpr absl::Duration kCheckInterval = absl::Seconds(5);
constexpr absl::Duration kCheckTimeout = absl::Seconds(5);
// While a check is refused nothing else can be said.
constexpr absl::Duration kCheckRetry = absl::Seconds(1);
// For the subscription, which comes first after a loss; one that stays away holds no heartbeat up.
constexpr absl::Duration kSubscriptionWait = absl::Seconds(1);
constexpr absl::Duration kTelemetryTimeout = absl::Seconds(2);

}  // namespace

// Returns when the sidecar ends, or another process took an id.
void Sidecar::Housekeep() {
  absl::Duration next_full_check = clock_.Monotonic() + kCheckInterval;
  // When a connection or an executor did, unless a check has passed since.
  std::optional<absl::Duration> returned;
  while (true) {
    bool hardware_changed = false;
    {
      absl::MutexLock lock(&mutex_);
      const absl::Duration now = clock_.Monotonic();
      clock_.Await(mutex_, absl::Condition(this, &Sidecar::KeeperWokenLocked),
                   std::min(next_full_check - now, UntilNextCheck(now)));
      if (ended_ || superseded_) return;
      sooner_check_ = false;
      if (std::exchange(woken_, false)) {
        if (!returned) returned = clock_.Monotonic();
        next_full_check = subscribed_ ? -absl::InfiniteDuration() : *returned + kSubscriptionWait;
      }
      hardware_changed = std::exchange(hardware_changed_, false);
    }
    if (hardware_changed) RefreshHardware();
    const absl::Duration now = clock_.Monotonic();
    const bool full = now >= next_full_check;
    std::vector<Worker*> due;
    for (const auto& worker : workers_) {
      const std::optional<absl::Duration> next = worker->presence().next_check();
      if (full || (next && *next <= now)) due.push_back(worker.get());
      worker->presence().ClearChecksUntil(now);
    }
    if (!full) {
      Check(due, Scope::kSome);
    } else if (Check(due, returned ? Scope::kAllReturned : Scope::kAll)) {
      returned.reset();
      next_full_check = now + kCheckInterval;
    } else {
      next_full_check = now + kCheckRetry;
    }
  }
}

absl::Duration Sidecar::UntilNextCheck(absl::Duration now) const {
  absl::Duration wait = kCheckInterval;
  for (const auto& worker : workers_) {
    const std::optional<absl::Duration> due = worker->presence().next_check();
    if (due) wait = std::min(wait, std::max(*due - now, absl::ZeroDuration()));
  }
  return wait;
}

absl::StatusOr<Sidecar::Shown> Sidecar::Look(const Worker& worker, absl::Duration timeout) const {
  const std::string key = absl::StrCat("worker:", worker.id());
  // An error of the server is no word on who holds the id.
  ASSIGN_OR_RETURN(const std::vector<redis::Reply> replies,
                   redis::WithoutErrors(redis_->Run({{"HGET", key, "instance_id"},
                                                     {"SISMEMBER", "workers:ids", worker.id()},
                                                     {"HGET", key, "status"}},
                                                    timeout)));
  return Shown{.instance_id = replies[0].text,
               .status = replies[2].text,
               .is_listed = replies[1].integer != 0};
}

bool Sidecar::IsForeign(const Worker& worker, const Shown& shown) const {
  // What stands there before our own registration was taken is an earlier life's.
  return !shown.instance_id.empty() && shown.instance_id != instance_id_ &&
         worker.presence().is_known();
}

void Sidecar::StepBack(const Worker& worker) {
  LogError(
      "another process has taken the worker id {}: this one steps back. Give each worker an "
      "id of its own (WORKER_ID)",
      worker.id());
  publisher_->Silence();
  absl::MutexLock lock(&mutex_);
  superseded_ = true;
}

// Compares Redis with what we know, and mends it (PROTOCOL.md 2.6, 2.8, 5.5). False: it could not
// be done. The order after a lost connection: registration, pending events, status, heartbeat.
bool Sidecar::Check(const std::vector<Worker*>& workers, Scope scope) {
  if (redis_ && redis_->state() != redis::State::kReady) return false;
  const uint64_t holds = publisher_->holds();
  for (Worker* worker : workers) {
    Presence& presence = worker->presence();
    if (!redis_) {
      if (presence.registration_due()) presence.RegisterAgain("hardware");
      continue;
    }
    const WorkerStatus status = presence.true_status();
    const absl::StatusOr<Shown> shown = Look(*worker, kCheckTimeout);
    if (!shown.ok()) {
      TellCheckProblem(*worker, shown.status());
      return false;
    }
    if (IsForeign(*worker, *shown)) {
      StepBack(*worker);
      return false;
    }
    if (!presence.is_known()) {
      presence.RegisterAgain("start");
    } else if (shown->instance_id.empty() || !shown->is_listed) {
      LogWarning("worker {} was gone from Redis: it registers again", worker->id());
      presence.RegisterAgain("lost");
    } else if (presence.registration_due()) {
      presence.RegisterAgain("hardware");
    } else if (shown->status != ToText(status) && status == presence.true_status()) {
      presence.SetStatusDue();  // one that changed meanwhile is written already
    }
  }
  check_problem_.clear();
  if (scope != Scope::kSome) {
    // Until tasks are heard there is only the true status to be told: STARTING.
    if (subscribed_) publisher_->ReleaseTaskEvents(holds);
    if (scope == Scope::kAllReturned) announcer_->Kick();
    publisher_->ReleaseTransactions(holds);
    TellSubscribed();
  }
  for (Worker* worker : workers) {
    worker->presence().Update();
    worker->presence().BeatIfDue();
  }
  return true;
}

// Once for each reason; a lost connection is told of by the client.
void Sidecar::TellCheckProblem(const Worker& worker, const absl::Status& problem) {
  if (!absl::IsInternal(problem)) return;
  if (std::exchange(check_problem_, Message(problem)) == Message(problem)) return;
  LogWarning("worker {}: what Redis holds of it cannot be read: {}", worker.id(), check_problem_);
}

// The hardware of each worker is its executor's; the next check registers a change.
void Sidecar::RefreshHardware() {
  for (size_t i = 0; i < workers_.size(); ++i) {
    const std::optional<v1::ExecutorDescription> description = links_[i]->description();
    if (!description) continue;
    Json hardware = HardwareJson(host_, description->devices(), config_.bandwidth);
    if (hardware == workers_[i]->presence().hardware()) continue;
    workers_[i]->presence().SetHardware(std::move(hardware));
  }
}

void Sidecar::BeatLoop() {
  absl::Duration next = clock_.Monotonic() + config_.heartbeat_interval;
  while (!WaitEnd(next - clock_.Monotonic())) {
    for (const auto& worker : workers_) worker->presence().Beat();
    // After a stall the beats go on where they would be, and none is made up for.
    do {
      next += config_.heartbeat_interval;
    } while (next <= clock_.Monotonic());
  }
}

// Sensors may be slow: they are read apart from the beats, which take the latest sample.
void Sidecar::PowerLoop() {
  while (!WaitEnd(config_.heartbeat_interval)) SamplePower();
}

void Sidecar::SamplePower() {
  // All at once: several that do not answer take no longer than one.
  std::vector<std::future<v1::Telemetry>> answers;
  for (const auto& link : links_) {
    answers.push_back(std::async(std::launch::async, [link = link.get()] {
      if (!link->available()) return v1::Telemetry();
      return link->Telemetry(kTelemetryTimeout).value_or(v1::Telemetry());
    }));
  }
  const std::optional<uint64_t> energy = ReadCpuEnergy();
  for (size_t i = 0; i < workers_.size(); ++i) {
    const v1::Telemetry telemetry = answers[i].get();
    absl::MutexLock lock(&mutex_);
    PowerMeter& meter = meters_[workers_[i]->id()];
    meter.Add(clock_.Monotonic(), clock_.Now(), energy, telemetry);
    const Json summary = meter.Summary(uptime());
    Json metrics = {{"power", meter.latest()}, {"power_summary", summary}};
    if (summary["estimated_energy_kwh"].is_number()) {
      metrics["estimated_energy_kwh"] = summary["estimated_energy_kwh"];
    }
    workers_[i]->presence().SetBeatMetrics(std::move(metrics), meter.latest());
  }
}

}  // namespace flowmesh::sidecar
