// How a sidecar ends: it drains, gives up what does not end in time, and unregisters.
#include <algorithm>
#include <utility>

#include "common/log.h"
#include "sidecar/sidecar.h"

namespace flowmesh::sidecar {
namespace {

// Between the last terminal event and UNREGISTER (PROTOCOL.md 2.7).
constexpr absl::Duration kUnregisterPause = absl::Seconds(1);
constexpr absl::Duration kUnregisterTimeout = absl::Seconds(5);
// For giving up: the executors' own grace, and files to be written.
constexpr absl::Duration kGiveUpTimeout = absl::Seconds(15);
// When forced: for executors to hear that their tasks are cancelled.
constexpr absl::Duration kForcedTimeout = absl::Seconds(1);

}  // namespace

void Sidecar::Drain() {
  LogInfo("draining: running tasks get {} to end", absl::FormatDuration(config_.drain_timeout));
  for (const auto& worker : workers_) worker->StartDrain();
  const absl::Duration deadline = clock_.Monotonic() + config_.drain_timeout;
  const auto all_drained = [&](absl::Duration until) {
    bool drained = true;
    for (const auto& worker : workers_) {
      while (!worker->WaitDrained(absl::Milliseconds(50))) {
        if (clock_.Monotonic() >= until || IsCutShort()) break;
      }
      drained = drained && worker->WaitDrained(absl::ZeroDuration());
    }
    return drained;
  };
  if (!all_drained(deadline)) {
    if (IsSuperseded()) return;
    const absl::Duration begin = clock_.Monotonic();
    GiveUp();
    all_drained(begin + kGiveUpTimeout);
  }
  if (redis_) {
    // An UNREGISTER that overtakes a terminal event would make a finished task run again.
    if (!AwaitReceipts(deadline)) return;
    absl::MutexLock lock(&mutex_);
    clock_.Await(mutex_, absl::Condition(this, &Sidecar::CutShortLocked),
                 std::max(announcer_->last_received() + kUnregisterPause - clock_.Monotonic(),
                          absl::ZeroDuration()));
  }
  Unregister();
}

// Terminal events are published again all the while. Those that nobody received until then stay in
// the journal for the next start, which UNREGISTER would clear.
bool Sidecar::AwaitReceipts(absl::Duration until) {
  while (!announcer_->WaitReceived(
      std::clamp(until - clock_.Monotonic(), absl::ZeroDuration(), absl::Milliseconds(50)))) {
    if (IsCutShort()) return true;
    if (clock_.Monotonic() < until) continue;
    LogWarning(
        "{} terminal events were received by nobody in the drain time: the next start publishes "
        "them, and nothing is unregistered",
        announcer_->awaited());
    return false;
  }
  return true;
}

void Sidecar::GiveUp() {
  size_t left = workers_.size();
  std::vector<std::thread> threads;
  for (const auto& worker : workers_) {
    threads.emplace_back([this, &left, worker = worker.get()] {
      worker->GiveUp();
      absl::MutexLock lock(&mutex_);
      --left;
    });
  }
  const auto given_up = [&] { return left == 0; };
  const auto over = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return given_up() || ForcedLocked();
  };
  {
    absl::MutexLock lock(&mutex_);
    clock_.Await(mutex_, absl::Condition(&over), kGiveUpTimeout);
    if (ForcedLocked()) clock_.Await(mutex_, absl::Condition(&given_up), kForcedTimeout);
  }
  for (const auto& link : links_) link->AbandonCancels();
  for (std::thread& thread : threads) thread.join();
}

// Whether the keys are still this process's, at the last moment.
bool Sidecar::MayUnregister() {
  const uint64_t holds = publisher_->holds();
  for (const auto& worker : workers_) {
    if (!worker->presence().registered()) continue;
    const absl::StatusOr<Shown> shown = Look(*worker, kUnregisterTimeout);
    if (!shown.ok()) {
      LogWarning("worker {} could not unregister: {}", worker->id(), Message(shown.status()));
      return false;
    }
    if (IsForeign(*worker, *shown)) {
      StepBack(*worker);
      return false;
    }
    if (!worker->presence().is_known()) {
      LogWarning("worker {} does not unregister: Redis never took its registration", worker->id());
      return false;
    }
  }
  publisher_->ReleaseTransactions(holds);
  return true;
}

void Sidecar::Unregister() {
  // Beats and checks would write the hash again.
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  if (beats_.joinable()) beats_.join();
  if (power_thread_.joinable()) power_thread_.join();
  if (keeper_.joinable()) keeper_.join();
  if (IsSuperseded()) return;
  const bool forced = [this] {
    absl::MutexLock lock(&mutex_);
    return ForcedLocked();
  }();
  if (!forced) SamplePower();
  if (redis_ && !MayUnregister()) return;
  struct Progress {
    absl::Mutex mutex;
    size_t left ABSL_GUARDED_BY(mutex) = 0;
    bool Done() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return left == 0; }
  };
  const auto progress = std::make_shared<Progress>();
  {
    absl::MutexLock lock(&progress->mutex);
    progress->left = workers_.size();
  }
  for (const auto& worker : workers_) {
    Json summary;
    {
      absl::MutexLock lock(&mutex_);
      summary = meters_[worker->id()].Summary(uptime());
    }
    worker->Unregister(uptime(), summary,
                       [progress, id = worker->id()](const absl::Status& status) {
                         if (!status.ok())
                           LogWarning("worker {} could not unregister: {}", id, Message(status));
                         absl::MutexLock lock(&progress->mutex);
                         --progress->left;
                       });
  }
  absl::MutexLock lock(&progress->mutex);
  clock_.Await(progress->mutex, absl::Condition(progress.get(), &Progress::Done),
               kUnregisterTimeout);
  LogInfo("unregistered");
}

}  // namespace flowmesh::sidecar
