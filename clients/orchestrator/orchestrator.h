// The local development orchestrator (PROTOCOL.md section 12, the minimal list): takes submissions,
// dispatches ready tasks to workers over Redis, follows their events, and keeps their results.
// HTTP stands in front of it (http_api.h); everything here can be driven without.
//
// Three threads beside the callers': the dispatcher (one pass over the ready queue at a time), the
// subscriber (events), the watchdog. One lock guards the task table; it is never held during I/O.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "clients/orchestrator/config.h"
#include "clients/orchestrator/events.h"
#include "clients/orchestrator/result_store.h"
#include "clients/orchestrator/substitution.h"
#include "clients/orchestrator/task_table.h"
#include "clients/orchestrator/watchdog.h"
#include "clients/orchestrator/workers.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/redis/client.h"
#include "common/redis/subscriber.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

// Thread-safe.
class Orchestrator {
 public:
  Orchestrator(Config config, const Clock& clock);
  ~Orchestrator();  // as Stop()

  // Connects, subscribes, starts the threads. Unavailable when Redis cannot be reached, or does not
  // confirm the subscription, in 10 s.
  absl::Status Start();
  // Ends the threads; wipes the Redis database only when configured to.
  void Stop();

  // Registers a YAML document; the answer has one entry per task. InvalidArgument: nothing was
  // registered.
  absl::StatusOr<Json> Submit(const std::string& yaml);
  Json Tasks() const;
  absl::StatusOr<Json> Task(const std::string& id) const;  // NotFound

  // Keeps a result that a worker delivered; the task's state does not change.
  absl::StatusOr<std::string> StoreResult(const std::string& task_id, const Json& document);

  absl::StatusOr<Json> WorkerList() const;
  absl::StatusOr<Json> WorkerById(const std::string& id) const;  // NotFound
  // FailedPrecondition when the feature is off; NotFound.
  absl::StatusOr<Json> SetElastic(const std::string& id, bool enabled);
  Json Metrics() const;

  const Config& config() const { return config_; }
  const ResultStore& store() const { return store_; }
  const Clock& clock() const { return clock_; }

 private:
  // A task that is about to be published.
  struct Dispatch {
    std::string task_id;
    std::string worker;
    std::vector<std::string> children;
    std::string envelope;
  };
  // What became of a ready task in one pass.
  enum class Outcome {
    kStays,    // it waits for a worker or a result
    kLeft,     // dispatched, or failed for good
    kRefused,  // publishing failed: an attempt is gone, and the next needs a pause
    kMoved,    // an event has changed the queue meanwhile
  };

  void DispatchLoop();
  void WatchdogLoop();
  // One pass over the ready queue; false when publishing failed.
  bool DispatchPass();
  Outcome TryDispatch(const TaskRecord& record, std::vector<Candidate>& candidates);
  // With no worker left: fails the ready tasks from `place` on that can never run, and notes what
  // the others wait for.
  void CheckQueueFrom(size_t place);
  // A copy of the next ready task that was not yet found to wait for a worker alone, and its place.
  std::optional<TaskRecord> UncheckedFrom(size_t& place) const;
  // A copy of the ready task at `place`; nothing past the end.
  std::optional<TaskRecord> ReadyAt(size_t place) const;
  absl::StatusOr<Json> Render(const TaskRecord& record) const;
  // Siblings that can travel with `parent` as envelope entries; their ids are added to `ids`.
  Json CollectChildren(const TaskRecord& parent, const Json& document,
                       std::vector<std::string>& ids) const;
  std::string BuildEnvelope(const TaskRecord& record, Json document, Json children,
                            const std::string& worker) const;
  Outcome Publish(const Dispatch& dispatch);
  void MarkDispatched(const Dispatch& dispatch);

  void OnRedisState(redis::State state, const std::string& reason);
  void OnSubscription(bool alive, const std::string& reason);
  // Waits for Redis at the start; says why it cannot be used.
  absl::Status AwaitRedis();
  absl::Status AwaitSubscription();

  void OnMessage(std::string_view message);
  void OnTaskEvent(const Event& event);
  void OnWorkerEvent(const Event& event);
  void TaskSucceeded(const Event& event);
  void TaskFailed(const Event& event);
  void WorkerLeft(const std::string& id);
  void SettleChildren(const std::string& parent, const std::vector<std::string>& children);
  void CheckWorkers();
  void DeclareDead(const std::string& worker);
  void Wake();

  const Config config_;
  const Clock& clock_;
  ResultStore store_;

  mutable absl::Mutex mutex_;
  redis::State redis_state_ ABSL_GUARDED_BY(mutex_) = redis::State::kConnecting;
  std::string redis_reason_ ABSL_GUARDED_BY(mutex_);  // for a state that is not ready
  bool subscribed_ ABSL_GUARDED_BY(mutex_) = false;
  TaskTable table_ ABSL_GUARDED_BY(mutex_);
  Watchdog watchdog_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool work_ ABSL_GUARDED_BY(mutex_) = false;  // something changed that may free a task
  int64_t registered_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unregistered_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t heartbeats_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t malformed_events_ ABSL_GUARDED_BY(mutex_) = 0;

  redis::Client redis_;  // behind all that its callback touches
  Workers workers_;
  std::unique_ptr<redis::Subscriber> subscriber_;
  absl::Duration next_queue_check_ = -absl::InfiniteDuration();  // the dispatcher's
  std::thread dispatcher_thread_;
  std::thread watchdog_thread_;
};

}  // namespace flowmesh::orchestrator
