// The terminal events of all workers on their way to the orchestrator (PROTOCOL.md 5.5): each waits
// until the orchestrator has marked the task, is published in order, and is published again until
// somebody has received it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "sidecar/worker/publisher.h"

namespace flowmesh::sidecar {

struct TerminalEvent {
  std::string worker_id;
  std::string task_id;
  std::string json;
  absl::Duration received;  // of the envelope, monotonic
  // The orchestrator handed the task out, and waits for its end.
  bool is_awaited = true;
  // Called once, from the announcer's thread or the publisher's, after the first try, whether or
  // not somebody received it: the worker is free then.
  std::function<void()> on_tried;
  // Called once when somebody has received it, or it was given up; may be null.
  std::function<void()> on_settled;
};

struct AnnouncerOptions {
  // The longest wait for the orchestrator's RUNNING, from the envelope's arrival on.
  absl::Duration floor = absl::Milliseconds(50);
  absl::Duration retry_limit = absl::Seconds(600);
  absl::Duration first_pause = absl::Milliseconds(100);
  absl::Duration longest_pause = absl::Seconds(5);
};

// Thread-safe; one thread of its own. Events of one worker stay in order.
class Announcer {
 public:
  // `publisher` is called until Stop.
  Announcer(AnnouncerOptions options, const Clock& clock, Publisher& publisher);
  ~Announcer();

  // Ends the thread: nothing more is published. Answers to what was may still come in.
  void Stop();

  void Add(TerminalEvent event);

  // The orchestrator wrote RUNNING for this worker just now: events of envelopes that came before
  // need not wait.
  void ForeignRunningSeen(const std::string& worker_id);

  // The connection is back: what is due has been sent again when this returns.
  void Kick();

  // Waits until nothing that is awaited is left to be published, at most `timeout`. False when
  // something is.
  bool WaitReceived(absl::Duration timeout) const;

  size_t pending() const;     // events not yet received by anybody
  size_t awaited() const;     // those of them that the orchestrator waits for
  uint64_t retries() const;   // publications that nobody received
  uint64_t given_up() const;  // events that nobody received within the limit
  // When the last event was received, monotonic; the infinite past before the first.
  absl::Duration last_received() const;

 private:
  struct Entry {
    TerminalEvent event;
    absl::Duration not_before;
    absl::Duration give_up;
    bool tried = false;
  };
  struct Queue {
    std::deque<Entry> entries;
    size_t in_flight = 0;  // of the entries, at the front
    absl::Duration pause;
    absl::Duration next_try;  // after a failure
    bool kicked = false;      // while entries were in flight: their failure says nothing new
  };

  void Run();
  // Sends what is due; returns when the next thing will be.
  absl::Duration SendDue();
  size_t DueLocked(const Queue& queue, absl::Duration now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const std::string& worker_id, const ReceiversOrStatus& receivers);
  bool WokenLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return woken_ || stopping_; }
  void SettleLocked(const Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool ReceivedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return awaited_ == 0; }

  const AnnouncerOptions options_;
  const Clock& clock_;
  Publisher& publisher_;

  mutable absl::Mutex mutex_;
  std::map<std::string, Queue> queues_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, absl::Duration> foreign_running_ ABSL_GUARDED_BY(mutex_);
  size_t pending_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t awaited_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t retries_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t given_up_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration last_received_ ABSL_GUARDED_BY(mutex_) = -absl::InfiniteDuration();
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace flowmesh::sidecar
