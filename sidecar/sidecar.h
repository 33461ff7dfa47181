// The whole sidecar of one pod: Redis on one side, executors on the other, and a worker per
// executor between them.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/redis/client.h"
#include "common/redis/subscriber.h"
#include "common/rpc/server.h"
#include "sidecar/config.h"
#include "sidecar/delivery/deliverer.h"
#include "sidecar/dispatch/executor_link.h"
#include "sidecar/hardware/host.h"
#include "sidecar/hardware/power.h"
#include "sidecar/intake/envelope.h"
#include "sidecar/journal/journal.h"
#include "sidecar/journal/state_dir.h"
#include "sidecar/metrics/http_endpoint.h"
#include "sidecar/metrics/metrics.h"
#include "sidecar/service/sidecar_service.h"
#include "sidecar/worker/announcer.h"
#include "sidecar/worker/publisher.h"
#include "sidecar/worker/task_table.h"
#include "sidecar/worker/worker.h"

namespace flowmesh::sidecar {

// How a sidecar ended, as an exit status.
enum class ExitCode { kOk = 0, kCannotStart = 1, kSuperseded = 3 };

// Start, Run and destruction belong to one thread; RequestDrain may be called from any.
class Sidecar {
 public:
  Sidecar(SidecarConfig config, const Clock& clock);
  ~Sidecar();

  // Opens what others connect to. Errors name the variable.
  absl::Status Start();

  // Connects, registers, works; returns after a drain, or when another process took the id.
  ExitCode Run();

  // 1: drain as PROTOCOL.md 2.7 says. 2 and more: at once.
  void RequestDrain(int count);

 private:
  absl::Status OpenJournal();
  absl::Status CheckResultsDir() const;
  void MakeParts();
  // Enters what an earlier life left behind, and what it had told.
  absl::Status Replay();
  std::unique_ptr<Worker> MakeWorker(const ExecutorEndpoint& executor, ExecutorLink& link);
  std::vector<Worker*> WorkerPointers() const;
  Worker* FindWorker(std::string_view id) const;  // null: not ours

  // The order of PROTOCOL.md 2.5. False: to be stopped before all of it was reached.
  bool ComeUp();
  void WaitForExecutors();
  bool WaitUntil(const std::function<bool()>& reached);
  // PROTOCOL.md 2.7; cut short when another process takes an id.
  void Drain();
  // False: not all terminal events were received by then; true as well when the drain is cut short.
  bool AwaitReceipts(absl::Duration until);
  // Of all workers at once, within a bound.
  void GiveUp();
  bool MayUnregister();
  void Unregister();
  bool IsSuperseded() const;
  bool IsCutShort() const;

  void OnMessage(std::string_view channel, std::string_view payload);
  void OnTaskMessage(std::string_view payload);
  void OnWorkerEvent(std::string_view payload);
  void OnSubscription(bool alive, const std::string& reason);
  void OnRedisState(redis::State state, const std::string& reason);
  void OnExecutorChange();
  void TellSubscribed();

  // Periodic work, each loop on a thread of its own from the registration to its end
  // (housekeeping.cc).
  void Housekeep();
  absl::Duration UntilNextCheck(absl::Duration now) const;
  // What Redis holds of a worker.
  struct Shown {
    std::string instance_id, status;
    bool is_listed = false;
  };
  absl::StatusOr<Shown> Look(const Worker& worker, absl::Duration timeout) const;
  bool IsForeign(const Worker& worker, const Shown& shown) const;
  void StepBack(const Worker& worker);
  // Some workers; all of them; all of them after something was away.
  enum class Scope { kSome, kAll, kAllReturned };
  bool Check(const std::vector<Worker*>& workers, Scope scope);
  void TellCheckProblem(const Worker& worker, const absl::Status& problem);
  void RefreshHardware();
  void BeatLoop();
  void PowerLoop();
  void SamplePower();
  bool WaitStop(absl::Duration timeout);  // true: the sidecar is to stop
  bool WaitEnd(absl::Duration timeout);   // true: the periodic threads are to end

  // What operators see (observe.cc).
  HealthPart Health() const;
  std::string MetricsText() const;
  void SampleWorkers(std::vector<Sample>& samples) const;
  void SampleRedis(std::vector<Sample>& samples) const;
  void SampleJournal(std::vector<Sample>& samples) const;
  void SampleProcess(std::vector<Sample>& samples) const;
  std::string RedisState() const;
  absl::Duration uptime() const { return clock_.Monotonic() - started_; }
  bool StopLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return drain_requests_ > 0 || superseded_ || ended_;
  }
  bool KeeperWokenLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return woken_ || sooner_check_ || superseded_ || ended_;
  }
  bool EndedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return ended_; }
  bool ForcedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return drain_requests_ > 1; }
  bool CutShortLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ForcedLocked() || superseded_;
  }

  SidecarConfig config_;  // the worker id may become that of an earlier life; else never changed
  const Clock& clock_;
  const absl::Duration started_;
  const absl::Time started_wall_;
  const std::string instance_id_;
  const HostInfo host_;
  std::unique_ptr<EnvelopeReader> reader_;
  StateDir state_;
  SidecarMetrics metrics_;
  TaskTable tasks_;
  Quarantine quarantine_;

  mutable absl::Mutex mutex_;
  int drain_requests_ ABSL_GUARDED_BY(mutex_) = 0;
  bool superseded_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;         // the periodic threads are to end
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;         // housekeeping is due at once
  bool sooner_check_ ABSL_GUARDED_BY(mutex_) = false;  // than the keeper waits for
  bool hardware_changed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, PowerMeter> meters_ ABSL_GUARDED_BY(mutex_);  // by worker id
  std::atomic<bool> subscribed_{false};
  // Between the first subscription and the end.
  uint64_t subscription_losses_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration deaf_ ABSL_GUARDED_BY(mutex_);  // in windows that are over
  std::optional<absl::Duration> deaf_since_ ABSL_GUARDED_BY(mutex_);

  std::unique_ptr<redis::Client> redis_;  // null when standalone
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Announcer> announcer_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<Deliverer> deliverer_;
  std::vector<std::unique_ptr<ExecutorLink>> links_;
  std::vector<std::unique_ptr<Worker>> workers_;  // one per link, in the same order
  std::unique_ptr<redis::Subscriber> subscriber_;
  std::unique_ptr<SidecarService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<HttpEndpoint> http_;
  std::thread beats_, power_thread_, keeper_;
  std::string check_problem_;  // the keeper's own: what was told last
};

}  // namespace flowmesh::sidecar
