#include "sidecar/worker/task_table.h"

#include <google/protobuf/util/time_util.h>

#include <utility>

#include "common/clock.h"

namespace flowmesh::sidecar {

using google::protobuf::util::TimeUtil;

TaskTable::Arrival TaskTable::Enter(const v1::TaskRecord& record, const std::string& attempt) {
  absl::MutexLock lock(&mutex_);
  const auto known = tasks_.find(record.task_id());
  if (known != tasks_.end()) {
    const Entry& old = known->second;
    if (!old.finished() || (!attempt.empty() && old.attempt == attempt)) return Arrival::kDuplicate;
    by_arrival_.erase(old.arrival);
  }
  Entry entry;
  entry.record = record;
  entry.record.set_state(v1::QUEUED);
  entry.attempt = attempt;
  entry.arrival = ++arrivals_;
  by_arrival_[entry.arrival] = record.task_id();
  tasks_[record.task_id()] = std::move(entry);
  return Arrival::kNew;
}

void TaskTable::Change(const std::string& task_id, const std::function<void(Entry&)>& change) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return;
  change(task->second);
  ++task->second.version;
}

void TaskTable::SetRunning(const std::string& task_id, const std::string& task_dir,
                           absl::Time now) {
  Change(task_id, [&](Entry& entry) {
    entry.record.set_state(v1::RUNNING);
    entry.record.set_task_dir(task_dir);
    *entry.record.mutable_started_at() = TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(now));
  });
}

void TaskTable::SetDelivering(const std::string& task_id) {
  Change(task_id, [](Entry& entry) { entry.record.set_state(v1::DELIVERING); });
}

void TaskTable::SetFinished(const std::string& task_id, const std::string& error, absl::Time now) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return;
  v1::TaskRecord& record = task->second.record;
  record.set_state(error.empty() ? v1::SUCCEEDED : v1::FAILED);
  record.set_error(error);
  *record.mutable_finished_at() = TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(now));
  FinishLocked(task_id, task->second);
}

void TaskTable::FinishLocked(const std::string& task_id, Entry& entry) {
  ++entry.version;
  while (entry.events.size() > limits_.events_per_finished_task) entry.events.pop_front();
  finished_.emplace_back(task_id, entry.arrival);
  while (finished_.size() > limits_.finished_tasks) {
    const auto [oldest, arrival] = std::move(finished_.front());
    finished_.pop_front();
    const auto found = tasks_.find(oldest);
    // A later attempt of the same id has an arrival of its own.
    if (found == tasks_.end() || found->second.arrival != arrival) continue;
    by_arrival_.erase(arrival);
    tasks_.erase(found);
  }
}

void TaskTable::Restore(const v1::TaskRecord& record, const std::string& attempt) {
  if (Enter(record, attempt) == Arrival::kDuplicate) return;
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(record.task_id());
  if (task == tasks_.end()) return;
  task->second.record = record;
  FinishLocked(record.task_id(), task->second);
}

void TaskTable::SetReusable(const std::string& task_id, Reusable result) {
  Change(task_id, [&](Entry& entry) { entry.reusable = std::move(result); });
}

std::optional<int64_t> TaskTable::FindReusable(const std::string& task_id,
                                               const std::string& fingerprint) const {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end() || !task->second.finished()) return std::nullopt;
  const std::optional<Reusable>& reusable = task->second.reusable;
  if (!reusable || reusable->fingerprint != fingerprint) return std::nullopt;
  return reusable->journal_entry;
}

void TaskTable::Forget(const std::string& task_id) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return;
  by_arrival_.erase(task->second.arrival);
  tasks_.erase(task);
}

void TaskTable::AddEvent(const std::string& task_id, const v1::TaskEvent& event) {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return;
  Entry& entry = task->second;
  if (event.has_progress()) *entry.record.mutable_progress() = event.progress();
  // The end is the record's: it holds the result document, which may be large.
  if (event.has_finished() || event.has_failed()) return;
  entry.events.push_back(event);
  if (entry.events.size() > limits_.events_per_task) entry.events.pop_front();
}

std::optional<v1::TaskRecord> TaskTable::Find(const std::string& task_id) const {
  absl::MutexLock lock(&mutex_);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return std::nullopt;
  return task->second.record;
}

std::vector<v1::TaskRecord> TaskTable::List(size_t limit, v1::TaskState state) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::TaskRecord> records;
  for (auto it = by_arrival_.rbegin(); it != by_arrival_.rend() && records.size() < limit; ++it) {
    const v1::TaskRecord& record = tasks_.at(it->second).record;
    if (state == v1::TASK_STATE_UNSPECIFIED || record.state() == state) records.push_back(record);
  }
  return records;
}

std::optional<TaskTable::News> TaskTable::WaitForNews(const std::string& task_id,
                                                      uint64_t seen_version, uint64_t from_sequence,
                                                      absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto has_news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto task = tasks_.find(task_id);
    if (task == tasks_.end()) return true;
    const Entry& entry = task->second;
    return entry.version != seen_version ||
           (!entry.events.empty() && entry.events.back().sequence() >= from_sequence);
  };
  Clock::Real().Await(mutex_, absl::Condition(&has_news), timeout);
  const auto task = tasks_.find(task_id);
  if (task == tasks_.end()) return std::nullopt;
  const Entry& entry = task->second;
  News news;
  news.record = entry.record;
  news.record_changed = entry.version != seen_version;
  news.version = entry.version;
  news.next_sequence = from_sequence;
  for (const v1::TaskEvent& event : entry.events) {
    if (event.sequence() < from_sequence) continue;
    news.events.push_back(event);
    news.next_sequence = event.sequence() + 1;
  }
  return news;
}

}  // namespace flowmesh::sidecar
