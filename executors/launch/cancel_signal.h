// A request to end one running task, raised by any thread and seen by the thread that runs it.
#pragma once

#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace flowmesh::executor {

// Thread-safe.
class CancelSignal {
 public:
  using Callback = std::function<void(absl::Duration grace)>;

  // Raises the signal: the task has `grace` to end by itself. Raising it again can shorten the
  // grace (the callback runs again); the first reason stays.
  void Request(absl::Duration grace, std::string reason);

  bool requested() const;
  std::string reason() const;

  // Runs `callback` for every request from now on, and at once when there was one already; null
  // takes it back, and no call is under way any more when this returns. The callback runs under
  // this object's lock: it must not call back and must not block.
  void SetCallback(Callback callback);

  // Waits until the signal is raised, at most `timeout`; returns whether it is.
  bool WaitFor(const Clock& clock, absl::Duration timeout) const;

 private:
  mutable absl::Mutex mutex_;
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration grace_ ABSL_GUARDED_BY(mutex_);
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  Callback callback_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh::executor
