// The tasks that this sidecar knows, for the local API and for telling duplicates apart: what is
// queued or running, and the latest finished ones.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "flowmesh/v1/sidecar.pb.h"

namespace flowmesh::sidecar {

struct TaskTableLimits {
  size_t finished_tasks = 5000;          // remembered, the newest first
  size_t events_per_task = 1000;         // kept for watchers; the oldest go first
  size_t events_per_finished_task = 20;  // for watchers that come late
};

// Thread-safe. A task is identified by its id; a new attempt of an id replaces the finished one.
class TaskTable {
 public:
  explicit TaskTable(TaskTableLimits limits = TaskTableLimits()) : limits_(limits) {}

  // What a message with a known id means (PROTOCOL.md 4.4).
  enum class Arrival { kNew, kDuplicate };

  // Enters a task as QUEUED unless it is queued or running already, or finished with the same
  // `attempt` (the envelope's dispatched_at; empty counts as none, which is always new).
  Arrival Enter(const v1::TaskRecord& record, const std::string& attempt);

  void SetRunning(const std::string& task_id, const std::string& task_dir, absl::Time now);
  void SetDelivering(const std::string& task_id);
  // `error` empty: SUCCEEDED.
  void SetFinished(const std::string& task_id, const std::string& error, absl::Time now);
  // A task that ended in an earlier life of the sidecar.
  void Restore(const v1::TaskRecord& record, const std::string& attempt);

  // The result of a task's finished run, as the journal keeps it, for a new attempt of the same
  // document.
  struct Reusable {
    int64_t journal_entry = 0;
    std::string fingerprint;  // of the document
  };
  void SetReusable(const std::string& task_id, Reusable result);
  // Nothing: the task is not known, not finished, or was another one.
  std::optional<int64_t> FindReusable(const std::string& task_id,
                                      const std::string& fingerprint) const;

  // The task was given back: as if it had never come.
  void Forget(const std::string& task_id);

  void AddEvent(const std::string& task_id, const v1::TaskEvent& event);

  std::optional<v1::TaskRecord> Find(const std::string& task_id) const;
  // Newest first.
  std::vector<v1::TaskRecord> List(size_t limit, v1::TaskState state) const;

  // What a watcher has not seen yet.
  struct News {
    v1::TaskRecord record;
    bool record_changed = false;
    std::vector<v1::TaskEvent> events;
    uint64_t next_sequence = 0;
    uint64_t version = 0;
  };
  // Waits, at most `timeout`, for a change after `seen_version` or an event from `from_sequence`
  // on. Nothing: the task is not known.
  std::optional<News> WaitForNews(const std::string& task_id, uint64_t seen_version,
                                  uint64_t from_sequence, absl::Duration timeout) const;

 private:
  struct Entry {
    v1::TaskRecord record;
    std::string attempt;
    uint64_t arrival = 0;  // order of entering
    uint64_t version = 1;  // grows with each change of the record
    std::deque<v1::TaskEvent> events;
    std::optional<Reusable> reusable;

    bool finished() const {
      return record.state() == v1::SUCCEEDED || record.state() == v1::FAILED;
    }
  };

  void FinishLocked(const std::string& task_id, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Change(const std::string& task_id, const std::function<void(Entry&)>& change);

  const TaskTableLimits limits_;
  mutable absl::Mutex mutex_;
  uint64_t arrivals_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Entry> tasks_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::string> by_arrival_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::pair<std::string, uint64_t>> finished_ ABSL_GUARDED_BY(mutex_);  // id, arrival
};

}  // namespace flowmesh::sidecar
