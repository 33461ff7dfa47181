// The sidecar's side of one executor: a gRPC channel that is watched and mended, and the running of
// one task on it. Nothing here knows what kind of executor it is
// (proto/flowmesh/v1/executor.proto).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/status.h"
#include "flowmesh/v1/executor.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace flowmesh::sidecar {

using TaskEnd = std::variant<v1::TaskFinished, v1::TaskFailed>;

struct ExecutorLinkOptions {
  // A task of which the executor says nothing for so long has hung. Infinite: never.
  absl::Duration silence_limit = absl::InfiniteDuration();
  // How often an executor is asked to describe itself, and how long an answer may take. One that
  // does not answer twice is stopped or stuck, whatever its health service said last.
  absl::Duration check_interval = absl::Seconds(10);
  absl::Duration answer_timeout = absl::Seconds(5);
  // How long a task waits for its executor to come back, and for one that is there to take it.
  absl::Duration lost_limit = absl::Seconds(60);
};

// Thread-safe. One thread watches the executor: it is available while it describes itself when
// asked and its health, if it has such a service, is SERVING.
class ExecutorLink {
 public:
  // `on_change` is called from the watching thread, which Start starts, whenever the availability
  // changed.
  ExecutorLink(std::string name, std::string target, ExecutorLinkOptions options,
               const Clock& clock, std::function<void()> on_change);
  ~ExecutorLink();
  ExecutorLink(const ExecutorLink&) = delete;
  ExecutorLink& operator=(const ExecutorLink&) = delete;

  void Start();

  const std::string& name() const { return name_; }
  const std::string& target() const { return target_; }
  bool available() const;
  // The latest description; nothing before the first.
  std::optional<v1::ExecutorDescription> description() const;
  // Waits until it is available, at most `timeout`.
  bool WaitAvailable(absl::Duration timeout) const;
  uint64_t disconnects() const;

  // Runs one task to its end; blocks; one at a time. A broken stream is taken up again where it
  // stopped. The end is always an answer: an executor that restarted, did not come back in time or
  // says nothing of the task for too long has failed it. `on_event` gets every event in order, from
  // this thread. `traceparent` goes along as metadata.
  TaskEnd Run(const v1::ExecuteRequest& request, const std::string& traceparent,
              const std::function<void(const v1::TaskEvent&)>& on_event);

  // Ends a running task; false when the executor runs no such task. An error: no answer; Run ends
  // all the same, and the executor is told again when it comes back.
  absl::StatusOr<bool> Cancel(const std::string& task_id, absl::Duration grace,
                              const std::string& reason);
  // Nobody waits any longer: a Cancel in progress ends without an answer.
  void AbandonCancels();

  absl::StatusOr<v1::Telemetry> Telemetry(absl::Duration timeout);

  // Ends the watching, and a Run in progress with a failure that nobody should use.
  void Stop();

 private:
  struct Stream;  // state of one Run

  void Watch();
  // `wait`: for the connection too, and not just for the answer.
  grpc::Status Describe(bool wait);
  bool Answers();
  void WatchHealth();
  grpc::StatusCode WatchHealthOnce(grpc::health::v1::Health::Stub& health);
  // Ends on an executor that is back what was to be ended while it was away.
  void CancelAgain();
  void BreakTaskCall();
  void SetAvailable(bool available);
  bool Pause(absl::Duration duration);  // false when stopping
  // One Execute or Attach; the end when the stream carried it.
  std::optional<TaskEnd> Follow(const v1::ExecuteRequest& request, Stream& stream);
  // Decides on a stream that broke: nothing means try again.
  std::optional<TaskEnd> AfterBreak(const v1::ExecuteRequest& request, Stream& stream);
  TaskEnd EndHung(const std::string& task_id);
  TaskEnd Lost(const std::string& why) const;
  bool HasRestartedSince(const std::string& instance_id) const;  // false when that is empty
  // The end of a task that was cancelled and for which nobody answers.
  std::optional<TaskEnd> CancelledEnd(bool is_gone) const;
  bool StoppingLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_; }
  bool WaitIsOverLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return available_ || stopping_ || cancelled_;
  }

  const std::string name_, target_;
  const ExecutorLinkOptions options_;
  const Clock& clock_;
  const std::function<void()> on_change_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Executor::Stub> stub_;

  mutable absl::Mutex mutex_;
  bool available_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t disconnects_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<v1::ExecutorDescription> description_ ABSL_GUARDED_BY(mutex_);
  // Calls that block on the executor; Stop cancels them.
  grpc::ClientContext* watch_call_ ABSL_GUARDED_BY(mutex_) = nullptr;
  grpc::ClientContext* task_call_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::set<grpc::ClientContext*> cancel_calls_ ABSL_GUARDED_BY(mutex_);
  // Of the Run in progress.
  std::string task_id_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::string> cancelled_ ABSL_GUARDED_BY(mutex_);  // the reason
  bool cancel_failed_ ABSL_GUARDED_BY(mutex_) = false;            // nobody answered
  std::string owed_cancel_ ABSL_GUARDED_BY(mutex_);  // id of a task whose Cancel got no answer
  std::thread thread_;
};

}  // namespace flowmesh::sidecar
