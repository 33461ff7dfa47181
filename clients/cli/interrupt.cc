#include "clients/cli/interrupt.h"

#include <utility>

namespace flowmesh::cli {

Interrupt::Interrupt() : watcher_([this](int count) { OnSignal(count); }) {}

Interrupt::~Interrupt() { ClearActions(); }

bool Interrupt::requested() const {
  absl::MutexLock lock(&mutex_);
  return count_ > 0;
}

void Interrupt::OnSignal(int count) {
  absl::MutexLock lock(&mutex_);
  count_ = count;
  const std::function<void()>& action = count == 1 ? first_ : later_;
  if (action) running_.emplace_back(action);
}

void Interrupt::SetActions(std::function<void()> first, std::function<void()> later) {
  ClearActions();
  absl::MutexLock lock(&mutex_);
  first_ = std::move(first);
  later_ = std::move(later);
  if (count_ > 0 && first_) running_.emplace_back(first_);
}

void Interrupt::ClearActions() {
  std::vector<std::thread> running;
  {
    absl::MutexLock lock(&mutex_);
    first_ = nullptr;
    later_ = nullptr;
    running.swap(running_);
  }
  for (std::thread& thread : running) thread.join();
}

}  // namespace flowmesh::cli
