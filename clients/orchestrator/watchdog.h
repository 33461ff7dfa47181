// Decides when a silent worker is dead (PROTOCOL.md 2.8). Pure: told what is stale, and the time.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace flowmesh::orchestrator {

// Thread-compatible.
class Watchdog {
 public:
  explicit Watchdog(absl::Duration grace) : grace_(grace) {}

  // Looks at the workers that matter now; `now` is monotonic. Returns those that have been stale
  // for the grace time since they were first seen so, each once per death.
  std::vector<std::string> Check(const std::map<std::string, bool>& stale_by_id,
                                 absl::Duration now);

  // A sign of life: an event of the worker's own.
  void SawAlive(const std::string& id);

  // Declared dead and not seen alive since.
  bool IsDead(const std::string& id) const { return dead_.contains(id); }

 private:
  absl::Duration grace_;
  std::map<std::string, absl::Duration> stale_since_;
  std::set<std::string> dead_;
};

}  // namespace flowmesh::orchestrator
