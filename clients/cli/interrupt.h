// Ctrl-C and SIGTERM for commands that wait.
#pragma once

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/signals.h"

namespace flowmesh::cli {

// Thread-safe. One for the process; BlockTerminationSignals comes before.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();

  bool requested() const;

  // What a first and a later signal does, each on a thread of its own, so that a slow first answer
  // does not hold up the second. A signal that came before counts.
  void SetActions(std::function<void()> first, std::function<void()> later);
  // Returns when no action runs any more and none will.
  void ClearActions();

 private:
  void OnSignal(int count);

  mutable absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::function<void()> first_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> later_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> running_ ABSL_GUARDED_BY(mutex_);
  SignalWatcher watcher_;  // last: it calls into the others
};

}  // namespace flowmesh::cli
