#include "executors/launch/cancel_signal.h"

#include <utility>

namespace flowmesh::executor {

void CancelSignal::Request(absl::Duration grace, std::string reason) {
  absl::MutexLock lock(&mutex_);
  if (!requested_) reason_ = std::move(reason);
  requested_ = true;
  grace_ = grace;
  if (callback_) callback_(grace_);
}

bool CancelSignal::requested() const {
  absl::MutexLock lock(&mutex_);
  return requested_;
}

std::string CancelSignal::reason() const {
  absl::MutexLock lock(&mutex_);
  return reason_;
}

void CancelSignal::SetCallback(Callback callback) {
  absl::MutexLock lock(&mutex_);
  callback_ = std::move(callback);
  if (callback_ && requested_) callback_(grace_);
}

bool CancelSignal::WaitFor(const Clock& clock, absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return clock.Await(mutex_, absl::Condition(&requested_), timeout);
}

}  // namespace flowmesh::executor
