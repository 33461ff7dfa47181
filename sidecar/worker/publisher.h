// Where a worker's writes go: Redis, or nowhere for a standalone sidecar.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/redis/client.h"
#include "common/redis/reply.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// How many receivers each of some published events had; a status when that is not known.
using ReceiversOrStatus = absl::StatusOr<std::vector<int64_t>>;

// Thread-safe. Nothing here blocks; what is sent arrives in the order of the calls.
class Publisher {
 public:
  virtual ~Publisher() = default;

  // One MULTI/EXEC. `done` (may be null) gets the outcome, perhaps from another thread.
  virtual void Transaction(std::vector<redis::Command> commands,
                           std::function<void(const absl::Status&)> done = nullptr) = 0;

  // Events of tasks, on `tasks.events`. `done` may be null.
  virtual void PublishTaskEvents(const std::vector<std::string>& events,
                                 std::function<void(const ReceiversOrStatus&)> done = nullptr) = 0;

  // From now on nothing is sent, and every `done` gets Cancelled: the names are somebody else's.
  virtual void Silence() = 0;
};

class RedisPublisher : public Publisher {
 public:
  explicit RedisPublisher(redis::Client& client) : client_(client) {}

  void Transaction(std::vector<redis::Command> commands,
                   std::function<void(const absl::Status&)> done) override;
  void PublishTaskEvents(const std::vector<std::string>& events,
                         std::function<void(const ReceiversOrStatus&)> done) override;
  void Silence() override { silent_ = true; }

 private:
  redis::Client& client_;
  std::atomic<bool> silent_{false};
};

// Standalone: everything has arrived at once.
class NoPublisher : public Publisher {
 public:
  void Transaction(std::vector<redis::Command> commands,
                   std::function<void(const absl::Status&)> done) override;
  void PublishTaskEvents(const std::vector<std::string>& events,
                         std::function<void(const ReceiversOrStatus&)> done) override;
  void Silence() override {}  // it never says anything
};

}  // namespace flowmesh::sidecar
