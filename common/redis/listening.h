// For tests: a subscriber with what it heard and told.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/redis/subscriber.h"

namespace flowmesh::redis {

using Received = std::pair<std::string, std::string>;  // channel and payload

// Listens on `tasks` and `events`. Thread-safe.
class Listening {
 public:
  explicit Listening(Address address, SubscriberOptions options = {})
      : subscriber_(
            std::move(address), {"tasks", "events"}, options,
            [this](std::string_view channel, std::string_view payload) {
              absl::MutexLock lock(&mutex_);
              messages_.emplace_back(channel, payload);
            },
            [this](bool alive, const std::string& reason) {
              absl::MutexLock lock(&mutex_);
              if (alive) ++lives_;
              if (!alive) deaths_.push_back(reason);
            }) {}

  bool WaitForLife(size_t count) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return lives_ >= count; });
  }
  bool WaitForDeath(size_t count = 1) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return deaths_.size() >= count; });
  }
  bool WaitForMessages(size_t count) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return messages_.size() >= count; });
  }
  std::vector<Received> messages() {
    absl::MutexLock lock(&mutex_);
    return messages_;
  }
  std::vector<std::string> deaths() {
    absl::MutexLock lock(&mutex_);
    return deaths_;
  }
  size_t lives() {
    absl::MutexLock lock(&mutex_);
    return lives_;
  }

 private:
  template <typename Condition>
  bool Await(const Condition& holds) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&holds), absl::Seconds(20));
  }

  absl::Mutex mutex_;
  std::vector<Received> messages_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> deaths_ ABSL_GUARDED_BY(mutex_);
  size_t lives_ ABSL_GUARDED_BY(mutex_) = 0;
  Subscriber subscriber_;  // last: its thread calls the above
};

}  // namespace flowmesh::redis
