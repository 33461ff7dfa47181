#include "sidecar/worker/quarantine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {

void Quarantine::CountDeath(const std::string& task_id, const std::string& fingerprint) {
  absl::MutexLock lock(&mutex_);
  const auto [found, is_new] = entries_.try_emplace(task_id);
  if (is_new) order_.push_back(task_id);
  Entry& entry = found->second;
  if (entry.fingerprint != fingerprint) entry = {.fingerprint = fingerprint};
  // Beyond 2^30 times the first delay is the longest anyhow.
  const int doublings = std::min(entry.deaths++, 30);
  entry.next_try = clock_.Monotonic() +
                   std::min(options_.most_delay, options_.first_delay * (int64_t{1} << doublings));
  while (order_.size() > options_.tasks) {
    entries_.erase(order_.front());
    order_.pop_front();
  }
}

void Quarantine::Forget(const std::string& task_id) {
  absl::MutexLock lock(&mutex_);
  if (entries_.erase(task_id) > 0) order_.erase(std::find(order_.begin(), order_.end(), task_id));
}

const Quarantine::Entry* Quarantine::FindLocked(const std::string& task_id,
                                                const std::string& fingerprint) const {
  const auto found = entries_.find(task_id);
  return found == entries_.end() || found->second.fingerprint != fingerprint ? nullptr
                                                                             : &found->second;
}

std::string Quarantine::WhyHeld(const std::string& task_id, const std::string& fingerprint) const {
  absl::MutexLock lock(&mutex_);
  const Entry* entry = FindLocked(task_id, fingerprint);
  if (entry == nullptr || options_.deaths == 0 || entry->deaths < options_.deaths) return "";
  return absl::StrCat("the task is quarantined: ", entry->deaths,
                      " runs of it ended their rank or executor (POISON_TASK_DEATHS)");
}

absl::Duration Quarantine::Delay(const std::string& task_id, const std::string& fingerprint) const {
  absl::MutexLock lock(&mutex_);
  const Entry* entry = FindLocked(task_id, fingerprint);
  if (entry == nullptr || options_.deaths == 0) return absl::ZeroDuration();
  return std::max(absl::ZeroDuration(), entry->next_try - clock_.Monotonic());
}

}  // namespace flowmesh::sidecar
