#include "sidecar/sidecar.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "common/field.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

// How long a start waits for executors to describe their hardware: a pod's executor container may
// come up after the sidecar, and the workers register without it then.
constexpr absl::Duration kExecutorWait = absl::Seconds(5);

std::vector<std::string> WorkerIds(const SidecarConfig& config) {
  std::vector<std::string> ids;
  for (const ExecutorEndpoint& executor : config.executors) {
    ids.push_back(config.WorkerIdOf(executor));
  }
  return ids;
}

void CountAttempt(const DeliveryAttempt& attempt, SidecarMetrics& metrics) {
  const bool result = attempt.kind == DeliveryAttempt::Kind::kResult;
  const char* outcome = "failed";
  if (attempt.outcome == DeliveryAttempt::Outcome::kDelivered) outcome = "delivered";
  if (attempt.outcome == DeliveryAttempt::Outcome::kRetried) outcome = "retried";
  metrics.CountDelivery(result ? "result" : "upload", outcome,
                        attempt.outcome == DeliveryAttempt::Outcome::kDelivered ? attempt.bytes : 0,
                        attempt.duration);
}

// Deafness is noticed within a beat, where beats are shorter than PROTOCOL.md's 20 s (2.6).
redis::SubscriberOptions Listening(absl::Duration heartbeat_interval) {
  redis::SubscriberOptions options;
  options.deaf_limit = std::clamp(heartbeat_interval, absl::Seconds(2), options.deaf_limit);
  options.ping_interval = options.deaf_limit / 2;
  return options;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

Sidecar::Sidecar(SidecarConfig config, const Clock& clock)
    : config_(std::move(config)),
      clock_(clock),
      started_(clock.Monotonic()),
      started_wall_(clock.Now()),
      instance_id_(RandomHex(16)),
      host_(ReadHostInfo()),
      metrics_(FLOWMESH_VERSION),
      quarantine_({.deaths = config_.poison_task_deaths}, clock_) {}

// Those who call are ended before those whom they call.
Sidecar::~Sidecar() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  http_.reset();
  if (service_) service_->Stop();
  server_.reset();
  subscriber_.reset();
  if (beats_.joinable()) beats_.join();
  if (power_thread_.joinable()) power_thread_.join();
  if (keeper_.joinable()) keeper_.join();
  for (const auto& link : links_) link->Stop();
  for (const auto& worker : workers_) worker->Stop();
  // No more posts, then the last answers; only then may those go whom the answers reach.
  if (announcer_) announcer_->Stop();
  redis_.reset();
  journal_.reset();
}

// --- Start-up ------------------------------------------------------------------------------------

absl::Status Sidecar::Start() {
  RETURN_IF_ERROR(Annotate(OpenJournal(), "STATE_DIR"));
  RETURN_IF_ERROR(CheckResultsDir());
  reader_ = std::make_unique<EnvelopeReader>(WorkerIds(config_), config_.max_message_bytes);
  MakeParts();
  RETURN_IF_ERROR(Annotate(Replay(), "STATE_DIR"));
  for (const auto& link : links_) link->Start();
  service_ = std::make_unique<SidecarService>(ServiceParts{
      .workers = WorkerPointers(),
      .tasks = &tasks_,
      .clock = &clock_,
      .redis_state = [this] { return RedisState(); },
      .uptime = [this] { return uptime(); },
      .start_drain = [this] { RequestDrain(1); },
      .flush_journal = [this] { journal_->Flush(); },
  });
  ASSIGN_OR_RETURN(server_, RpcServer::Start({.variable = "SIDECAR_LISTEN",
                                              .listen = config_.listen,
                                              .service_name = v1::Sidecar::service_full_name()},
                                             *service_));
  if (config_.metrics_listen) {
    ASSIGN_OR_RETURN(http_, HttpEndpoint::Start(*config_.metrics_listen,
                                                {.metrics = [this] { return MetricsText(); },
                                                 .health = [this] { return Health(); }}));
  }
  LogInfo("sidecar {} {} listens on {}", config_.worker_id, FLOWMESH_VERSION, server_->target());
  return absl::OkStatus();
}

absl::Status Sidecar::OpenJournal() {
  ASSIGN_OR_RETURN(
      state_, OpenStateDir(config_.state_dir, config_.worker_id_was_set ? config_.worker_id : ""));
  ASSIGN_OR_RETURN(journal_, Journal::Open(state_.journal(), JournalOptions(), clock_));
  // A random id is a new one with each start, unless work waits for the old one.
  if (!config_.worker_id_was_set && journal_->stats().open_tasks > 0 &&
      !journal_->worker_id().empty()) {
    config_.worker_id = journal_->worker_id();
  }
  return absl::OkStatus();
}

absl::Status Sidecar::Replay() {
  ASSIGN_OR_RETURN(const std::vector<JournalClosed> closed,
                   journal_->ClosedTasks(TaskTableLimits().finished_tasks));
  for (const JournalClosed& task : closed) {
    RestoreClosed(task, tasks_);
    if (task.keep == JournalKeep::kResult) {
      quarantine_.Forget(task.task.task_id);
    } else if (task.keep == JournalKeep::kDeath) {
      quarantine_.CountDeath(task.task.task_id, task.task.fingerprint);
    }
  }
  ASSIGN_OR_RETURN(std::vector<JournalEntry> open, journal_->OpenTasks());
  journal_->SetWorkerId(config_.worker_id);
  for (JournalEntry& entry : open) {
    if (Worker* worker = FindWorker(entry.task.worker_id)) {
      worker->Restore(std::move(entry));
    } else {
      LogWarning("task {} was left behind by worker {}, which is not configured here: it waits",
                 entry.task.task_id, entry.task.worker_id);
    }
  }
  return absl::OkStatus();
}

absl::Status Sidecar::CheckResultsDir() const {
  absl::Status status = MakeDirectories(config_.results_dir);
  if (status.ok() && ::access(config_.results_dir.c_str(), W_OK) != 0) {
    status = ErrnoError("cannot write to", config_.results_dir);
  }
  return Annotate(status, "RESULTS_DIR");
}

void Sidecar::MakeParts() {
  if (config_.redis) {
    redis::ClientOptions options;
    options.on_state = [this](redis::State state, const std::string& reason) {
      OnRedisState(state, reason);
    };
    // The client tells of its state from its own thread, and may do so before it is stored here.
    absl::MutexLock lock(&mutex_);
    redis_ = std::make_unique<redis::Client>(*config_.redis, std::move(options));
    publisher_ = std::make_unique<RedisPublisher>(*redis_);
  } else {
    publisher_ = std::make_unique<NoPublisher>();
  }
  announcer_ = std::make_unique<Announcer>(
      AnnouncerOptions{.floor = redis_ ? config_.terminal_event_floor : absl::ZeroDuration(),
                       .retry_limit = config_.event_retry},
      clock_, *publisher_);
  deliverer_ = std::make_unique<Deliverer>(
      DelivererOptions{
          .orchestrator_base_url = config_.orchestrator_base_url,
          .orchestrator_token = config_.orchestrator_token,
          .delivery_timeout = config_.delivery_timeout,
          .bandwidth = config_.bandwidth,
          .archive = config_.archive,
          .cleanup_after_upload = config_.cleanup_after_upload,
          .on_attempt = [this](const DeliveryAttempt& attempt) { CountAttempt(attempt, metrics_); },
          .on_archive = [this](bool ok) { metrics_.CountArchive(ok); }},
      clock_);
  for (const ExecutorEndpoint& executor : config_.executors) {
    links_.push_back(std::make_unique<ExecutorLink>(
        executor.name, executor.target, ExecutorLinkOptions{.silence_limit = config_.task_silence},
        clock_, [this] { OnExecutorChange(); }));
    workers_.push_back(MakeWorker(executor, *links_.back()));
    workers_.back()->presence().SetOnSoonerCheck([this] {
      absl::MutexLock lock(&mutex_);
      sooner_check_ = true;
    });
  }
}

std::unique_ptr<Worker> Sidecar::MakeWorker(const ExecutorEndpoint& executor, ExecutorLink& link) {
  const std::string id = config_.WorkerIdOf(executor);
  return std::make_unique<Worker>(
      WorkerOptions{.worker_id = id,
                    .results_dir = config_.results_dir,
                    .orchestrator_base_url = config_.orchestrator_base_url,
                    .orchestrator_token = config_.orchestrator_token,
                    .heartbeat_interval = config_.heartbeat_interval,
                    .process_start = started_},
      Registration{.worker_id = id,
                   .instance_id = instance_id_,
                   .started_at = started_wall_,
                   .pid = ::getpid(),
                   .tags = config_.tags,
                   .cost_per_hour = config_.cost_per_hour,
                   .hardware = HardwareJson(host_, v1::DeviceGroup(), config_.bandwidth)},
      WorkerParts{.clock = clock_,
                  .publisher = *publisher_,
                  .executor = link,
                  .deliverer = *deliverer_,
                  .tasks = tasks_,
                  .quarantine = quarantine_,
                  .journal = *journal_,
                  .announcer = *announcer_,
                  .metrics = metrics_});
}

std::vector<Worker*> Sidecar::WorkerPointers() const {
  std::vector<Worker*> pointers;
  for (const auto& worker : workers_) pointers.push_back(worker.get());
  return pointers;
}

// --- Life ----------------------------------------------------------------------------------------

ExitCode Sidecar::Run() {
  if (ComeUp()) WaitStop(absl::InfiniteDuration());
  if (!IsSuperseded()) Drain();
  if (!IsSuperseded()) return ExitCode::kOk;
  GiveUp();
  return ExitCode::kSuperseded;
}

bool Sidecar::IsSuperseded() const {
  absl::MutexLock lock(&mutex_);
  return superseded_;
}

bool Sidecar::IsCutShort() const {
  absl::MutexLock lock(&mutex_);
  return CutShortLocked();
}

void Sidecar::RequestDrain(int count) {
  absl::MutexLock lock(&mutex_);
  drain_requests_ = std::max(drain_requests_, count);
}

// The order of PROTOCOL.md 2.5.
bool Sidecar::ComeUp() {
  if (redis_ && !WaitUntil([this] { return redis_->state() == redis::State::kReady; }))
    return false;
  WaitForExecutors();
  SamplePower();
  if (redis_) {
    subscriber_ = std::make_unique<redis::Subscriber>(
        *config_.redis, std::vector<std::string>{config_.task_topic, kWorkerEvents},
        Listening(config_.heartbeat_interval),
        [this](std::string_view channel, std::string_view payload) { OnMessage(channel, payload); },
        [this](bool alive, const std::string& reason) { OnSubscription(alive, reason); });
    if (!WaitUntil([this] { return subscribed_.load(); })) return false;
  } else {
    OnSubscription(true, "");
  }
  // Whatever Redis holds of these ids, an earlier life left it behind.
  const uint64_t holds = publisher_->holds();
  if (redis_ && redis_->state() == redis::State::kReady) {
    publisher_->ReleaseTaskEvents(holds);
    publisher_->ReleaseTransactions(holds);
  }
  TellSubscribed();
  for (const auto& worker : workers_) worker->Register();
  keeper_ = std::thread([this] { Housekeep(); });
  beats_ = std::thread([this] { BeatLoop(); });
  power_thread_ = std::thread([this] { PowerLoop(); });
  return true;
}

// Polls: these states announce themselves from several threads. False: to be stopped.
bool Sidecar::WaitUntil(const std::function<bool()>& reached) {
  while (!reached()) {
    if (WaitStop(absl::Milliseconds(2))) return false;
  }
  return true;
}

void Sidecar::WaitForExecutors() {
  const absl::Duration deadline = clock_.Monotonic() + kExecutorWait;
  WaitUntil([&] {
    return clock_.Monotonic() > deadline ||
           std::all_of(links_.begin(), links_.end(),
                       [](const auto& link) { return link->available(); });
  });
  RefreshHardware();
}

bool Sidecar::WaitStop(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return clock_.Await(mutex_, absl::Condition(this, &Sidecar::StopLocked), timeout);
}

bool Sidecar::WaitEnd(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return clock_.Await(mutex_, absl::Condition(this, &Sidecar::EndedLocked), timeout);
}

// --- What comes in -------------------------------------------------------------------------------

void Sidecar::OnMessage(std::string_view channel, std::string_view payload) {
  if (channel == config_.task_topic) OnTaskMessage(payload);
  if (channel == kWorkerEvents) OnWorkerEvent(payload);
}

void Sidecar::OnTaskMessage(std::string_view payload) {
  Intake intake = reader_->Read(payload);
  if (const auto* bad = std::get_if<BadMessage>(&intake)) {
    metrics_.CountMessage(bad->reason);
    LogWarning("a message of {} bytes on {} is dropped: {}", payload.size(), config_.task_topic,
               bad->detail);
    return;
  }
  auto* envelope = std::get_if<Envelope>(&intake);
  if (envelope == nullptr) return metrics_.CountMessage("foreign");
  const std::string task_id = envelope->task_id;
  Worker* worker = FindWorker(envelope->worker_id);
  switch (worker->Accept(std::move(*envelope), kFromRedis, payload.size())) {
    case Worker::Acceptance::kQueued:
      return metrics_.CountMessage("accepted");
    case Worker::Acceptance::kDuplicate:
      LogInfo("task {} came again and is ignored: it is known", task_id);
      return metrics_.CountMessage("duplicate");
    case Worker::Acceptance::kQuarantined:
      return metrics_.CountMessage("quarantined");
    case Worker::Acceptance::kFull:
      return metrics_.CountMessage("queue_full");
    case Worker::Acceptance::kDraining:
      LogInfo("task {} came while draining: UNREGISTER gives it back", task_id);
      return metrics_.CountMessage("draining");
  }
}

Worker* Sidecar::FindWorker(std::string_view id) const {
  const auto found = std::find_if(workers_.begin(), workers_.end(),
                                  [&](const auto& worker) { return worker->id() == id; });
  return found == workers_.end() ? nullptr : found->get();
}

// Statuses of our workers that somebody else wrote: the short form, without a payload.
void Sidecar::OnWorkerEvent(std::string_view payload) {
  if (Contains(payload, "\"payload\"") || !Contains(payload, "STATUS")) return;
  const absl::StatusOr<Json> event = ParseJson(payload);
  if (!event.ok() || !event->is_object() || event->contains("payload")) return;
  const Field root(&*event, "");
  if (ToLower(root["type"].StringOr("").value_or("")) != "status") return;
  Worker* worker = FindWorker(root["worker_id"].StringOr("").value_or(""));
  if (worker != nullptr) worker->OnForeignStatus(root["status"].StringOr("").value_or(""));
}

void Sidecar::OnSubscription(bool alive, const std::string& reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (subscribed_ && !alive) {
      ++subscription_losses_;
      deaf_since_ = clock_.Monotonic();
    } else if (!subscribed_ && alive && deaf_since_) {
      deaf_ += clock_.Monotonic() - *deaf_since_;
      deaf_since_.reset();
    }
    subscribed_ = alive;
    // That it is alive is told once the registration has been looked at.
    woken_ = woken_ || alive;
  }
  if (alive) return;
  LogWarning("the subscription is lost, tasks may be missed: {}", reason);
  TellSubscribed();
}

void Sidecar::TellSubscribed() {
  absl::MutexLock lock(&mutex_);  // or a newer one might be overtaken
  for (const auto& worker : workers_) worker->presence().SetSubscribed(subscribed_);
}

void Sidecar::OnRedisState(redis::State state, const std::string& reason) {
  if (state == redis::State::kReady) {
    LogInfo("connected to Redis at {}", config_.redis->ToString());
    absl::MutexLock lock(&mutex_);
    woken_ = true;
  } else {
    {
      absl::MutexLock lock(&mutex_);  // the publisher may be in the making
      publisher_->Hold();
    }
    LogWarning("Redis at {}: {}", config_.redis->ToString(), reason);
  }
}

void Sidecar::OnExecutorChange() {
  for (const auto& worker : workers_) worker->presence().Update();
  absl::MutexLock lock(&mutex_);
  hardware_changed_ = true;
  woken_ = true;
}

}  // namespace flowmesh::sidecar
