#include "clients/orchestrator/orchestrator.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/orchestrator/merge.h"
#include "common/field.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/yaml.h"

namespace flowmesh::orchestrator {
namespace {

constexpr absl::Duration kStartLimit = absl::Seconds(10);
constexpr absl::Duration kRetryPause = absl::Milliseconds(500);
constexpr char kIdleWorker[] = "an idle worker that fits";

std::vector<std::string> DeclaredArtifacts(const Json& document) {
  const auto names = Field(&document, "")["spec"]["output"]["artifacts"].StringList();
  return names.ok() ? *names : std::vector<std::string>{};
}

// What a task waits for that none of the candidates may take.
std::string WhyNobody(const Json& document, const std::vector<Candidate>& candidates,
                      const std::string& excluded) {
  std::string text = kIdleWorker;
  if (!excluded.empty()) absl::StrAppend(&text, ", other than ", excluded, ", where it failed");
  for (const Candidate& candidate : candidates) {
    const std::string lacking = Lacking(document, candidate.hardware);
    if (!lacking.empty()) absl::StrAppend(&text, "; ", candidate.id, " has no ", lacking);
  }
  return text;
}

}  // namespace

Orchestrator::Orchestrator(Config config, const Clock& clock)
    : config_(std::move(config)),
      clock_(clock),
      store_(config_.results_dir, clock),
      watchdog_(config_.watchdog_grace),
      redis_(config_.redis,
             {.on_state = [this](redis::State state,
                                 const std::string& reason) { OnRedisState(state, reason); }}),
      workers_(redis_, clock) {}

Orchestrator::~Orchestrator() { Stop(); }

absl::Status Orchestrator::Start() {
  RETURN_IF_ERROR(MakeDirectories(config_.results_dir));
  RETURN_IF_ERROR(AwaitRedis());
  RETURN_IF_ERROR(workers_.LoadElastic());
  subscriber_ = std::make_unique<redis::Subscriber>(
      config_.redis, std::vector<std::string>{"workers.events", "tasks.events"},
      redis::SubscriberOptions{},
      [this](std::string_view, std::string_view message) { OnMessage(message); },
      [this](bool alive, const std::string& reason) { OnSubscription(alive, reason); });
  RETURN_IF_ERROR(AwaitSubscription());
  dispatcher_thread_ = std::thread([this] { DispatchLoop(); });
  if (config_.watchdog) watchdog_thread_ = std::thread([this] { WatchdogLoop(); });
  return absl::OkStatus();
}

absl::Status Orchestrator::AwaitRedis() {
  // A server that starts or loads its data is waited for; one that refuses us will not change its
  // mind.
  const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return redis_state_ == redis::State::kReady || redis_state_ == redis::State::kNoAuth ||
           redis_state_ == redis::State::kWrongPassword ||
           redis_state_ == redis::State::kNoPermission;
  };
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&settled), kStartLimit);
  if (redis_state_ == redis::State::kReady) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("Redis at ", config_.redis.ToString(), ": ", redis_reason_));
}

absl::Status Orchestrator::AwaitSubscription() {
  absl::MutexLock lock(&mutex_);
  if (mutex_.AwaitWithTimeout(absl::Condition(&subscribed_), kStartLimit)) return absl::OkStatus();
  return absl::UnavailableError("Redis did not confirm the subscription to the event channels");
}

void Orchestrator::OnRedisState(redis::State state, const std::string& reason) {
  if (state != redis::State::kReady) {
    LogWarning("Redis at {}: {}", config_.redis.ToString(), reason);
  }
  absl::MutexLock lock(&mutex_);
  redis_state_ = state;
  redis_reason_ = reason;
}

void Orchestrator::OnSubscription(bool alive, const std::string& reason) {
  if (!alive) LogWarning("no subscription, events are missed: {}", reason);
  absl::MutexLock lock(&mutex_);
  subscribed_ = alive;
}

void Orchestrator::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  if (dispatcher_thread_.joinable()) dispatcher_thread_.join();
  if (watchdog_thread_.joinable()) watchdog_thread_.join();
  subscriber_.reset();
  if (config_.flushdb_on_exit) {
    LogWarning("wiping the Redis database, as ORCHESTRATOR_FLUSHDB_ON_EXIT asks");
    if (const absl::Status status = redis_.Ask({"FLUSHDB"}).status(); !status.ok()) {
      LogError("FLUSHDB failed: {}", Message(status));
    }
  }
}

void Orchestrator::Wake() {
  absl::MutexLock lock(&mutex_);
  work_ = true;
}

absl::StatusOr<Json> Orchestrator::Submit(const std::string& yaml) {
  ASSIGN_OR_RETURN(const Json document, ParseYaml(yaml));
  ASSIGN_OR_RETURN(std::vector<PlannedTask> plan, PlanSubmission(document));
  Json tasks = Json::array();
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(const std::vector<std::string> ids,
                   table_.Add(std::move(plan), yaml, clock_.Now()));
  for (const std::string& id : ids) {
    const TaskRecord& record = *table_.Find(id);
    tasks.push_back(SubmittedToJson(record, table_.DependenciesLeft(record)));
  }
  work_ = true;
  return Json{{"ok", true}, {"count", ids.size()}, {"tasks", std::move(tasks)}};
}

Json Orchestrator::Tasks() const {
  Json tasks = Json::array();
  absl::MutexLock lock(&mutex_);
  for (const TaskRecord* record : table_.All()) {
    tasks.push_back(RecordToJson(*record, table_.DependenciesLeft(*record)));
  }
  return tasks;
}

absl::StatusOr<Json> Orchestrator::Task(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  const TaskRecord* record = table_.Find(id);
  if (record == nullptr) return absl::NotFoundError("Task not found");
  return RecordToJson(*record, table_.DependenciesLeft(*record));
}

absl::StatusOr<std::string> Orchestrator::StoreResult(const std::string& task_id,
                                                      const Json& document) {
  std::vector<std::string> artifacts;
  {
    absl::MutexLock lock(&mutex_);
    const TaskRecord* record = table_.Find(task_id);
    if (record != nullptr) artifacts = DeclaredArtifacts(record->document);
  }
  ASSIGN_OR_RETURN(const std::filesystem::path path,
                   store_.StoreResult(task_id, document, artifacts));
  Wake();  // a stage may wait for this file
  return path.string();
}

absl::StatusOr<Json> Orchestrator::WorkerList() const {
  ASSIGN_OR_RETURN(const std::vector<WorkerEntry> workers, workers_.List());
  Json list = Json::array();
  for (const WorkerEntry& worker : workers) list.push_back(WorkerToJson(worker));
  return list;
}

absl::StatusOr<Json> Orchestrator::WorkerById(const std::string& id) const {
  ASSIGN_OR_RETURN(const std::optional<WorkerEntry> worker, workers_.Find(id));
  if (!worker) return absl::NotFoundError("Worker not found");
  return WorkerToJson(*worker);
}

absl::StatusOr<Json> Orchestrator::SetElastic(const std::string& id, bool enabled) {
  if (!config_.elastic) return absl::FailedPreconditionError("Elastic scaling is disabled");
  ASSIGN_OR_RETURN(const std::optional<WorkerEntry> worker, workers_.Find(id));
  if (!worker) return absl::NotFoundError("Worker not found");
  RETURN_IF_ERROR(workers_.SetElastic(id, enabled));
  Wake();
  return Json{
      {"worker_id", id}, {"enabled", enabled}, {"elastic_disabled", workers_.ElasticDisabled()}};
}

Json Orchestrator::Metrics() const {
  const absl::StatusOr<std::vector<WorkerEntry>> workers = workers_.List();
  int64_t active = 0;
  Json entries = Json::object();
  if (workers.ok()) {
    for (const WorkerEntry& worker : *workers) {
      active += worker.stale ? 0 : 1;
      entries[worker.id] = {{"status", worker.Field("status")}, {"stale", worker.stale}};
    }
  }
  absl::MutexLock lock(&mutex_);
  const Counters& counters = table_.counters();
  return {
      {"generated_at", FormatTimestamp(clock_.Now())},
      {"counters",
       {{"tasks_submitted", counters.submitted},
        {"tasks_succeeded", counters.succeeded},
        {"tasks_failed", counters.failed},
        {"tasks_requeued", counters.requeued},
        {"workers_registered", registered_},
        {"workers_unregistered", unregistered_},
        {"worker_heartbeats", heartbeats_},
        {"malformed_events", malformed_events_}}},
      {"workers", entries},
      {"active_workers_count", active},
      {"elastic_disabled_workers", workers_.ElasticDisabled()},
      {"ready_tasks", table_.ready_count()},
      {"completed_tasks", counters.succeeded},
  };
}

void Orchestrator::WatchdogLoop() {
  absl::MutexLock lock(&mutex_);
  while (!clock_.Await(mutex_, absl::Condition(&stopping_), config_.watchdog_interval)) {
    mutex_.Unlock();
    CheckWorkers();
    mutex_.Lock();
  }
}

void Orchestrator::DispatchLoop() {
  const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return work_ || stopping_; };
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    work_ = false;
    bool refused = false;
    if (table_.ready_count() > 0) {
      mutex_.Unlock();
      refused = !DispatchPass();
      mutex_.Lock();
    }
    // Heartbeats and file systems raise no event, so a queue that could not move is looked at
    // again.
    const bool idle = table_.ready_count() == 0;
    if (refused) {
      clock_.Await(mutex_, absl::Condition(&stopping_), kRetryPause);
    } else {
      clock_.Await(mutex_, absl::Condition(&woken), idle ? absl::InfiniteDuration() : kRetryPause);
    }
  }
}

std::optional<TaskRecord> Orchestrator::ReadyAt(size_t place) const {
  absl::MutexLock lock(&mutex_);
  if (place >= table_.ready_count() || stopping_) return std::nullopt;
  return table_.ReadyAt(place);
}

bool Orchestrator::DispatchPass() {
  absl::StatusOr<std::vector<Candidate>> candidates = workers_.Candidates();
  if (!candidates.ok()) {
    LogWarning("cannot look for workers: {}", Message(candidates.status()));
    return true;
  }
  size_t place = 0;
  while (!candidates->empty()) {
    const std::optional<TaskRecord> record = ReadyAt(place);
    if (!record) break;
    switch (TryDispatch(*record, *candidates)) {
      case Outcome::kStays:
        ++place;
        break;
      case Outcome::kLeft:
        break;
      case Outcome::kRefused:
        return false;
      case Outcome::kMoved:
        Wake();  // for another pass
        return true;
    }
  }
  if (candidates->empty()) CheckQueueFrom(place);
  return true;
}

std::optional<TaskRecord> Orchestrator::UncheckedFrom(size_t& place) const {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return std::nullopt;
  for (; place < table_.ready_count(); ++place) {
    const TaskRecord& record = table_.ReadyAt(place);
    if (!absl::StartsWith(record.waiting_for, kIdleWorker)) return record;
  }
  return std::nullopt;
}

void Orchestrator::CheckQueueFrom(size_t place) {
  // While workers are busy there is a pass for every task that ends, and the queue may be long.
  const absl::Duration now = clock_.Monotonic();
  if (now < next_queue_check_) return;
  next_queue_check_ = now + kRetryPause;
  std::vector<Candidate> nobody;
  while (const std::optional<TaskRecord> record = UncheckedFrom(place)) {
    if (TryDispatch(*record, nobody) == Outcome::kStays) ++place;
  }
}

absl::StatusOr<Json> Orchestrator::Render(const TaskRecord& record) const {
  if (record.name.empty()) return record.document;
  StageMap stages;
  {
    absl::MutexLock lock(&mutex_);
    for (const TaskRecord* member : table_.Submission(record.submission_id)) {
      stages[member->name] = {.task_id = member->task_id,
                              .done = member->status == TaskStatus::kDone,
                              .stored = Json()};
    }
  }
  for (auto& [name, stage] : stages) {
    if (!stage.done || name == record.name) continue;
    absl::StatusOr<Json> stored = store_.LoadResult(stage.task_id);
    if (stored.ok()) {
      stage.stored = *std::move(stored);
    } else if (!absl::IsNotFound(stored.status())) {
      LogWarning("result of task {} cannot be read: {}", stage.task_id, Message(stored.status()));
    }
  }
  return RenderDocument(record.document, record.name, stages);
}

Json Orchestrator::CollectChildren(const TaskRecord& parent, const Json& document,
                                   std::vector<std::string>& ids) const {
  Json children = Json::array();
  if (!config_.merge || parent.merge_key.empty()) return children;
  std::vector<TaskRecord> siblings;
  {
    absl::MutexLock lock(&mutex_);
    for (const std::string& id : table_.MergeSiblings(parent.task_id)) {
      siblings.push_back(*table_.Find(id));
    }
  }
  const std::string key = MergeKey(document);
  for (const TaskRecord& sibling : siblings) {
    if (static_cast<int>(ids.size()) + 1 >= config_.merge_max_batch) break;
    // One that cannot be rendered yet, or not to an equal spec, waits for its own turn.
    absl::StatusOr<Json> rendered = Render(sibling);
    if (sibling.status != TaskStatus::kPending || !rendered.ok() || MergeKey(*rendered) != key) {
      continue;
    }
    ids.push_back(sibling.task_id);
    children.push_back({{"task_id", sibling.task_id},
                        {"spec", std::move((*rendered)["spec"])},
                        {"metadata", rendered->value("metadata", Json::object())}});
  }
  return children;
}

std::string Orchestrator::BuildEnvelope(const TaskRecord& record, Json document, Json children,
                                        const std::string& worker) const {
  Json envelope = {
      {"task_id", record.task_id},
      {"task", std::move(document)},
      {"task_type", record.task_type.empty() ? Json() : Json(record.task_type)},
      {"assigned_worker", worker},
      {"dispatched_at", FormatTimestamp(clock_.Now())},
      {"parent_task_id", nullptr},
  };
  if (!children.empty()) envelope["merged_children"] = std::move(children);
  return DumpJson(envelope);
}

Orchestrator::Outcome Orchestrator::TryDispatch(const TaskRecord& record,
                                                std::vector<Candidate>& candidates) {
  const auto wait = [&](std::string why) {
    absl::MutexLock lock(&mutex_);
    table_.NoteWaiting(record.task_id, std::move(why));
    return Outcome::kStays;
  };
  if (record.status != TaskStatus::kPending) return Outcome::kStays;
  absl::StatusOr<Json> document = Render(record);
  if (absl::IsUnavailable(document.status())) return wait(Message(document.status()));
  if (!document.ok()) {
    LogWarning("task {} fails: {}", record.task_id, Message(document.status()));
    absl::MutexLock lock(&mutex_);
    table_.Fail(record.task_id, Message(document.status()), clock_.Now());
    return Outcome::kLeft;
  }
  const std::optional<size_t> choice =
      ChooseWorker(*document, candidates, record.last_failed_worker);
  if (!choice) return wait(WhyNobody(*document, candidates, record.last_failed_worker));
  Dispatch dispatch;
  dispatch.task_id = record.task_id;
  dispatch.worker = candidates[*choice].id;
  Json children = CollectChildren(record, *document, dispatch.children);
  dispatch.envelope =
      BuildEnvelope(record, *std::move(document), std::move(children), dispatch.worker);
  candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(*choice));
  return Publish(dispatch);
}

void Orchestrator::MarkDispatched(const Dispatch& dispatch) {
  absl::MutexLock lock(&mutex_);
  table_.MarkDispatched(dispatch.task_id, dispatch.worker, dispatch.children, clock_.Now());
}

Orchestrator::Outcome Orchestrator::Publish(const Dispatch& dispatch) {
  {
    absl::MutexLock lock(&mutex_);
    // A task that was believed lost may have been told done while it was rendered.
    if (!table_.Take(dispatch.task_id, dispatch.children)) return Outcome::kMoved;
  }
  // The record is marked first, so that no event can find it unmarked; the reference marks it after
  // PUBLISH has returned, which `late_order_delay` reproduces.
  if (!config_.late_order_delay) MarkDispatched(dispatch);
  const absl::StatusOr<redis::Reply> receivers =
      redis_.Ask({"PUBLISH", "tasks", dispatch.envelope});
  if (!receivers.ok() || receivers->integer == 0) {
    const std::string reason =
        receivers.ok() ? "nobody listens on `tasks`" : Message(receivers.status());
    LogWarning("task {} not dispatched: {}", dispatch.task_id, reason);
    absl::MutexLock lock(&mutex_);
    table_.AttemptFailed(dispatch.task_id, "", reason, clock_.Now());
    return Outcome::kRefused;
  }
  if (config_.late_order_delay) {
    absl::SleepFor(*config_.late_order_delay);
    MarkDispatched(dispatch);
  }
  LogInfo(
      "task {} -> worker {}{}", dispatch.task_id, dispatch.worker,
      dispatch.children.empty() ? "" : absl::StrCat(" with ", dispatch.children.size(), " merged"));
  // Always after PUBLISH: workers hold a terminal event back until they have seen this.
  if (const absl::Status status = workers_.SetStatus(dispatch.worker, "RUNNING"); !status.ok()) {
    LogWarning("worker {} not marked RUNNING: {}", dispatch.worker, Message(status));
  }
  return Outcome::kLeft;
}

}  // namespace flowmesh::orchestrator
