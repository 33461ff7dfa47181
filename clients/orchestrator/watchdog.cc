#include "clients/orchestrator/watchdog.h"

namespace flowmesh::orchestrator {

std::vector<std::string> Watchdog::Check(const std::map<std::string, bool>& stale_by_id,
                                         absl::Duration now) {
  std::vector<std::string> died;
  for (const auto& [id, stale] : stale_by_id) {
    if (!stale) {
      SawAlive(id);
      continue;
    }
    const absl::Duration since = stale_since_.emplace(id, now).first->second;
    if (now - since >= grace_ && dead_.insert(id).second) died.push_back(id);
  }
  return died;
}

void Watchdog::SawAlive(const std::string& id) {
  stale_since_.erase(id);
  dead_.erase(id);
}

}  // namespace flowmesh::orchestrator
