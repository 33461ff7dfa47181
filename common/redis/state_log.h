// For tests: what a client told of its connection.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/redis/client.h"

namespace flowmesh::redis {

// Outlives the client that it listens to. Thread-safe.
class StateLog {
 public:
  // `options` with on_state set to this log.
  ClientOptions Listen(ClientOptions options = {}) {
    options.on_state = [this](State state, const std::string& reason) {
      absl::MutexLock lock(&mutex_);
      states_.emplace_back(state, reason);
    };
    return options;
  }

  // Waits, at most 20 s, for the `count`-th time that `state` was told.
  bool WaitFor(State state, size_t count = 1) {
    absl::MutexLock lock(&mutex_);
    const auto told = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return Count(state) >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&told), absl::Seconds(20));
  }

  bool Told(State state) {
    absl::MutexLock lock(&mutex_);
    return Count(state) > 0;
  }

  // The reason that was last told for `state`; empty when there was none.
  std::string Reason(State state) {
    absl::MutexLock lock(&mutex_);
    for (auto told = states_.rbegin(); told != states_.rend(); ++told) {
      if (told->first == state) return told->second;
    }
    return "";
  }

 private:
  size_t Count(State state) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    size_t count = 0;
    for (const auto& told : states_) count += told.first == state ? 1 : 0;
    return count;
  }

  absl::Mutex mutex_;
  std::vector<std::pair<State, std::string>> states_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh::redis
