#include "sidecar/worker/announcer.h"

#include <algorithm>
#include <utility>

#include "common/log.h"

namespace flowmesh::sidecar {
namespace {

constexpr size_t kMaxBatch = 256;
constexpr absl::Duration kLookAround = absl::Seconds(1);

}  // namespace

Announcer::Announcer(AnnouncerOptions options, const Clock& clock, Publisher& publisher)
    : options_(options), clock_(clock), publisher_(publisher), thread_([this] { Run(); }) {}

Announcer::~Announcer() { Stop(); }

void Announcer::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Announcer::Add(TerminalEvent event) {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    const absl::Duration now = clock_.Monotonic();
    Entry entry;
    entry.not_before = event.received + options_.floor;
    const auto seen = foreign_running_.find(event.worker_id);
    if (seen != foreign_running_.end() && seen->second >= event.received) entry.not_before = now;
    entry.give_up = now + options_.retry_limit;
    ++pending_;
    if (event.is_awaited) ++awaited_;
    Queue& queue = queues_[event.worker_id];
    entry.event = std::move(event);
    queue.entries.push_back(std::move(entry));
    if (DueLocked(queue, now) == 0) {
      // Behind others it is not the next thing that the thread waits for.
      if (queue.entries.size() == 1) woken_ = true;
      return;
    }
  }
  // Due at once: not worth a thread's wake-up.
  SendDue();
}

void Announcer::ForeignRunningSeen(const std::string& worker_id) {
  absl::MutexLock lock(&mutex_);
  const absl::Duration now = clock_.Monotonic();
  foreign_running_[worker_id] = now;
  for (Entry& entry : queues_[worker_id].entries)
    entry.not_before = std::min(entry.not_before, now);
  woken_ = true;
}

void Announcer::Kick() {
  {
    absl::MutexLock lock(&mutex_);
    for (auto& [worker_id, queue] : queues_) {
      queue.pause = absl::ZeroDuration();
      queue.next_try = -absl::InfiniteDuration();
      queue.kicked = queue.in_flight > 0;
    }
    woken_ = true;
  }
  SendDue();
}

bool Announcer::WaitReceived(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return clock_.Await(mutex_, absl::Condition(this, &Announcer::ReceivedLocked), timeout);
}

size_t Announcer::pending() const {
  absl::MutexLock lock(&mutex_);
  return pending_;
}

size_t Announcer::awaited() const {
  absl::MutexLock lock(&mutex_);
  return awaited_;
}

uint64_t Announcer::retries() const {
  absl::MutexLock lock(&mutex_);
  return retries_;
}

uint64_t Announcer::given_up() const {
  absl::MutexLock lock(&mutex_);
  return given_up_;
}

absl::Duration Announcer::last_received() const {
  absl::MutexLock lock(&mutex_);
  return last_received_;
}

void Announcer::Run() {
  absl::Duration wait = kLookAround;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      clock_.Await(mutex_, absl::Condition(this, &Announcer::WokenLocked), wait);
      if (stopping_) return;
      woken_ = false;
    }
    wait = SendDue();
  }
}

// How many entries at the queue's front may be published now.
size_t Announcer::DueLocked(const Queue& queue, absl::Duration now) const {
  if (queue.in_flight > 0 || queue.next_try > now) return 0;
  size_t due = 0;
  while (due < queue.entries.size() && due < kMaxBatch && queue.entries[due].not_before <= now) {
    ++due;
  }
  return due;
}

absl::Duration Announcer::SendDue() {
  struct Batch {
    std::string worker_id;
    std::vector<std::string> events;
  };
  std::vector<Batch> batches;
  absl::Duration wait = kLookAround;
  {
    absl::MutexLock lock(&mutex_);
    const absl::Duration now = clock_.Monotonic();
    for (auto& [worker_id, queue] : queues_) {
      const size_t due = DueLocked(queue, now);
      if (due > 0) {
        Batch batch{.worker_id = worker_id};
        for (size_t i = 0; i < due; ++i) batch.events.push_back(queue.entries[i].event.json);
        queue.in_flight = due;
        batches.push_back(std::move(batch));
      } else if (queue.in_flight == 0 && !queue.entries.empty()) {
        const absl::Duration next = std::max(queue.next_try, queue.entries.front().not_before);
        wait = std::min(wait, std::max(next - now, absl::ZeroDuration()));
      }
    }
  }
  for (Batch& batch : batches) {
    publisher_.PublishTaskEvents(
        batch.events, [this, worker_id = batch.worker_id](const ReceiversOrStatus& receivers) {
          Finish(worker_id, receivers);
        });
  }
  return wait;
}

// It is received, or given up.
void Announcer::SettleLocked(const Entry& entry) {
  --pending_;
  if (entry.event.is_awaited) --awaited_;
}

void Announcer::Finish(const std::string& worker_id, const ReceiversOrStatus& receivers) {
  std::vector<std::function<void()>> callbacks;
  {
    absl::MutexLock lock(&mutex_);
    Queue& queue = queues_[worker_id];
    const absl::Duration now = clock_.Monotonic();
    std::deque<Entry> kept;
    bool failed = false;
    for (size_t i = 0; i < queue.in_flight; ++i) {
      Entry& entry = queue.entries[i];
      if (!entry.tried) callbacks.push_back(std::move(entry.event.on_tried));
      entry.tried = true;
      if (receivers.ok() && i < receivers->size() && (*receivers)[i] > 0) {
        last_received_ = now;
        SettleLocked(entry);
        callbacks.push_back(std::move(entry.event.on_settled));
        continue;
      }
      failed = true;
      ++retries_;
      if (now < entry.give_up) {
        kept.push_back(std::move(entry));
        continue;
      }
      ++given_up_;
      SettleLocked(entry);
      callbacks.push_back(std::move(entry.event.on_settled));
      LogError("task {}: nobody received its end within the time limit; it is given up",
               entry.event.task_id);
    }
    queue.entries.erase(queue.entries.begin(),
                        queue.entries.begin() + static_cast<std::ptrdiff_t>(queue.in_flight));
    queue.entries.insert(queue.entries.begin(), std::make_move_iterator(kept.begin()),
                         std::make_move_iterator(kept.end()));
    queue.in_flight = 0;
    if (failed && !queue.kicked) {
      queue.pause = queue.pause == absl::ZeroDuration()
                        ? options_.first_pause
                        : std::min(queue.pause * 2, options_.longest_pause);
      queue.next_try = now + queue.pause;
    } else {
      queue.pause = absl::ZeroDuration();
    }
    queue.kicked = false;
    if (!queue.entries.empty()) woken_ = true;
  }
  for (const std::function<void()>& callback : callbacks) {
    if (callback) callback();
  }
}

}  // namespace flowmesh::sidecar
