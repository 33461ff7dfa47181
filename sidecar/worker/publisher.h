// Where a worker's writes go: Redis, or nowhere for a standalone sidecar.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/redis/client.h"
#include "common/redis/reply.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// How many receivers each of some published events had; a status when that is not known.
using ReceiversOrStatus = absl::StatusOr<std::vector<int64_t>>;

// Thread-safe. Nothing here blocks; what is sent arrives in the order of the calls.
//
// After a lost connection Redis may hold nothing of a worker, or somebody else's registration:
// Hold() turns everything but registrations away, as if the connection were still gone, until
// whoever has looked releases it.
class Publisher {
 public:
  virtual ~Publisher() = default;

  // One MULTI/EXEC. `done` (may be null) gets the outcome, perhaps from another thread.
  virtual void Transaction(std::vector<redis::Command> commands,
                           std::function<void(const absl::Status&)> done = nullptr) = 0;

  // The same of a registration, which is also sent while others are held.
  virtual void Register(std::vector<redis::Command> commands,
                        std::function<void(const absl::Status&)> done) = 0;

  // Events of tasks, on `tasks.events`. `done` may be null.
  virtual void PublishTaskEvents(const std::vector<std::string>& events,
                                 std::function<void(const ReceiversOrStatus&)> done = nullptr) = 0;

  virtual void Hold() = 0;
  // How often that was called: a release counts only when it was not called again meanwhile.
  virtual uint64_t holds() const = 0;
  virtual void ReleaseTaskEvents(uint64_t holds) = 0;
  virtual void ReleaseTransactions(uint64_t holds) = 0;

  // From now on nothing is sent, and every `done` gets Cancelled: the names are somebody else's.
  virtual void Silence() = 0;
};

// Held until the first release.
class RedisPublisher : public Publisher {
 public:
  explicit RedisPublisher(redis::Client& client) : client_(client) {}

  void Transaction(std::vector<redis::Command> commands,
                   std::function<void(const absl::Status&)> done) override;
  void Register(std::vector<redis::Command> commands,
                std::function<void(const absl::Status&)> done) override;
  void PublishTaskEvents(const std::vector<std::string>& events,
                         std::function<void(const ReceiversOrStatus&)> done) override;
  void Hold() override;
  uint64_t holds() const override;
  void ReleaseTaskEvents(uint64_t holds) override;
  void ReleaseTransactions(uint64_t holds) override;
  void Silence() override { silent_ = true; }

 private:
  enum class Kind { kRegistration, kTransaction, kTaskEvents };
  // Why that is not sent now.
  absl::Status Refusal(Kind kind) const;
  void Send(Kind kind, std::vector<redis::Command> transaction,
            std::function<void(const absl::Status&)> done);

  redis::Client& client_;
  std::atomic<bool> silent_{false};
  mutable absl::Mutex mutex_;  // never held while something is sent: `done` may come back here
  uint64_t holds_ ABSL_GUARDED_BY(mutex_) = 0;
  bool task_events_held_ ABSL_GUARDED_BY(mutex_) = true;
  bool transactions_held_ ABSL_GUARDED_BY(mutex_) = true;
};

// Standalone: everything has arrived at once.
class NoPublisher : public Publisher {
 public:
  void Transaction(std::vector<redis::Command> commands,
                   std::function<void(const absl::Status&)> done) override;
  void Register(std::vector<redis::Command> commands,
                std::function<void(const absl::Status&)> done) override;
  void PublishTaskEvents(const std::vector<std::string>& events,
                         std::function<void(const ReceiversOrStatus&)> done) override;
  void Hold() override {}
  uint64_t holds() const override { return 0; }
  void ReleaseTaskEvents(uint64_t) override {}
  void ReleaseTransactions(uint64_t) override {}
  void Silence() override {}  // it never says anything
};

}  // namespace flowmesh::sidecar
