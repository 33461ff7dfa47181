// The workers as Redis shows them, and the few things an orchestrator writes about them
// (PROTOCOL.md 2.1, 2.2, 5.1, 9).
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "clients/orchestrator/placement.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/redis/client.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

struct WorkerEntry {
  std::string id;
  std::map<std::string, std::string> hash;  // `worker:<id>`
  bool stale = true;                        // no live `:hb` key
  bool elastic_disabled = false;

  std::string Field(const std::string& name) const;  // empty when absent
  Json Hardware() const;                             // an empty map when it cannot be read
};

// Thread-safe. Errors are those of redis::Client::Ask.
class Workers {
 public:
  Workers(redis::Client& redis, const Clock& clock) : redis_(redis), clock_(clock) {}

  // Takes `workers:elastic_disabled` over from an earlier life of the orchestrator.
  absl::Status LoadElastic();

  // Every id of `workers:ids` that has a hash, sorted by id.
  absl::StatusOr<std::vector<WorkerEntry>> List() const;
  // One worker from its hash alone; nothing when it has none.
  absl::StatusOr<std::optional<WorkerEntry>> Find(const std::string& id) const;
  // Those that may get a task now: IDLE, alive, not switched off.
  absl::StatusOr<std::vector<Candidate>> Candidates() const;
  absl::StatusOr<bool> IsStale(const std::string& id) const;

  // HSET of `status` and `last_seen` with a short STATUS event.
  absl::Status SetStatus(const std::string& id, std::string_view status);

  absl::Status SetElastic(const std::string& id, bool enabled);
  // An id that unregistered counts as enabled when it comes back.
  void ForgetElastic(const std::string& id);
  std::vector<std::string> ElasticDisabled() const;

 private:
  absl::StatusOr<std::vector<WorkerEntry>> Read(const std::vector<std::string>& ids) const;

  redis::Client& redis_;
  const Clock& clock_;
  mutable absl::Mutex mutex_;
  std::set<std::string> elastic_disabled_ ABSL_GUARDED_BY(mutex_);
};

// A worker as GET /workers shows it.
Json WorkerToJson(const WorkerEntry& worker);

}  // namespace flowmesh::orchestrator
