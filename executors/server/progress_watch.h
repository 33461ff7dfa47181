// Notices a task that hangs: one that lives and says nothing.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"

namespace flowmesh::executor {

// Calls `on_hung` once, from a thread of its own, when no Touch came for `bound`; never after the
// destructor has returned. An infinite bound: never.
class ProgressWatch {
 public:
  ProgressWatch(const Clock& clock, absl::Duration bound, std::function<void()> on_hung);
  ~ProgressWatch();
  ProgressWatch(const ProgressWatch&) = delete;
  ProgressWatch& operator=(const ProgressWatch&) = delete;

  // The task has made a step. Thread-safe.
  void Touch();

 private:
  void Watch();

  const Clock& clock_;
  const absl::Duration bound_;
  const std::function<void()> on_hung_;
  absl::Mutex mutex_;
  absl::Duration touched_ ABSL_GUARDED_BY(mutex_);  // monotonic
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace flowmesh::executor
