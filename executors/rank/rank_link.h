// The rank's end of the socket to its executor: a thread that reads, so that a stop is seen while a
// task runs, and serialised writes.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/files.h"
#include "common/status.h"
#include "flowmesh/v1/rank.pb.h"

namespace flowmesh::rank {

// Thread-safe.
class RankLink {
 public:
  // Takes the socket over and starts to read. `on_lost` is called on the reading thread when the
  // executor has closed the socket or broken the protocol: a rank without executor has nothing left
  // to do, so the program ends there and then.
  RankLink(UniqueFd socket, std::function<void(const absl::Status&)> on_lost);

  // Ends the reading thread; closes the socket.
  ~RankLink();

  // Waits for the next task; nothing once the rank is to end.
  std::optional<v1::RunTask> NextTask();

  // Whether the task that NextTask gave last is to stop.
  bool is_stopped() const { return stopped_; }

  // Stops the running task and makes NextTask return nothing: SIGTERM, or a message from the
  // executor.
  void Shutdown();

  // Sends a message. A peer that is gone shows on the reading thread, so nothing is returned but
  // for ResourceExhausted: the message is over the frame's limit and was not sent.
  absl::Status Send(const v1::FromRank& message);

 private:
  void Read();
  bool HasTaskOrEnds() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !tasks_.empty() || shutdown_;
  }

  const UniqueFd socket_;
  const std::function<void(const absl::Status&)> on_lost_;
  std::atomic<bool> stopped_{false};
  std::atomic<bool> closing_{false};

  absl::Mutex mutex_;
  std::deque<v1::RunTask> tasks_ ABSL_GUARDED_BY(mutex_);
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;

  absl::Mutex write_mutex_;
  std::thread reader_;
};

}  // namespace flowmesh::rank
