// The orchestrator's memory: one record per task, the ready queue, and every change of state that
// events and dispatching cause (PROTOCOL.md 12.2, 12.3, 12.5, 5.4). A pure state machine: the time
// is an argument, and nothing here touches Redis, files or threads.
//
//   PENDING ──MarkDispatched──▶ DISPATCHED ──Succeeded──▶ DONE
//      ▲──── AttemptFailed ────────┘ └── third AttemptFailed, Fail ──▶ FAILED
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "clients/orchestrator/submission.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

inline constexpr int kMaxAttempts = 3;

enum class TaskStatus { kPending, kDispatched, kDone, kFailed };

std::string_view TaskStatusName(TaskStatus status);  // `PENDING`

struct TaskRecord {
  std::string task_id;
  std::string submission_id;
  std::shared_ptr<const std::string> raw_yaml;  // shared by the submission
  Json document;                                // placeholders still in it
  std::string name;                             // of the stage or node; empty for a lone task
  std::string task_type;                        // empty when the document has none
  std::string merge_key;                        // empty: never merged
  int64_t load = 0;
  std::vector<std::string> depends_on;
  std::vector<std::string> dependents;

  TaskStatus status = TaskStatus::kPending;
  bool queued = false;     // stands in the ready queue
  bool in_flight = false;  // taken from the queue, not yet marked (only in the reference's order)
  std::string assigned_worker;
  std::string error;
  std::string waiting_for;  // why a ready task is not dispatched, for people
  int attempts = 0;
  std::string last_failed_worker;
  std::string last_error;  // what the worker said of the last failed attempt
  std::vector<std::string> merged_children;
  std::string merged_parent_id;

  absl::Time submitted_at;
  std::optional<absl::Time> queued_at, dispatched_at, started_at, finished_at;
};

struct Counters {
  int64_t submitted = 0;
  int64_t succeeded = 0;
  int64_t failed = 0;
  int64_t requeued = 0;
};

// Thread-compatible: the orchestrator holds its lock around every call.
class TaskTable {
 public:
  // Makes the records of a submission and queues those that wait for nothing; returns their ids in
  // the plan's order. InvalidArgument, with nothing registered, when a dependency is no known task
  // or has failed.
  absl::StatusOr<std::vector<std::string>> Add(std::vector<PlannedTask> plan, std::string raw_yaml,
                                               absl::Time now);

  const TaskRecord* Find(const std::string& id) const;
  std::vector<const TaskRecord*> All() const;  // oldest first
  std::vector<const TaskRecord*> Submission(const std::string& submission_id) const;
  // The ready queue, first in, first out.
  size_t ready_count() const { return ready_.size(); }
  const TaskRecord& ReadyAt(size_t place) const { return *records_.at(ready_[place]); }
  const Counters& counters() const { return counters_; }
  // Tasks a worker has been given, merged children not counted.
  std::vector<std::string> DispatchedTo(std::string_view worker) const;
  std::vector<std::string> DependenciesLeft(const TaskRecord& record) const;
  // Ready tasks other than `id` with its merge key, in queue order.
  std::vector<std::string> MergeSiblings(const std::string& id) const;

  void NoteWaiting(const std::string& id, std::string reason);

  // Takes a ready task and its merged children out of the queue; MarkDispatched follows. False,
  // with nothing taken, when one of them stands there no longer: an event has moved it.
  bool Take(const std::string& id, const std::vector<std::string>& children);
  // Records a dispatch. Unconditional, so that the reference's late order shows its trap.
  void MarkDispatched(const std::string& id, const std::string& worker,
                      const std::vector<std::string>& children, absl::Time now);

  // One attempt more: back to the front of the queue with its merged children before it, or FAILED
  // with `max_attempts_exceeded`. `worker`, when not empty, is excluded from the next try.
  void AttemptFailed(const std::string& id, const std::string& worker, std::string reason,
                     absl::Time now);
  // FAILED at once, and everything that waits for it.
  void Fail(const std::string& id, std::string error, absl::Time now);
  void Started(const std::string& id, const std::string& worker, absl::Time now);
  // DONE; ready dependents are queued. Returns the merged children, which stay DISPATCHED until
  // they are settled one by one with Succeeded or Fail.
  std::vector<std::string> Succeeded(const std::string& id, absl::Time now);

  // Whether a TASK_FAILED of `worker` concerns the task's present attempt.
  bool IsRunningOn(const TaskRecord& record, std::string_view worker) const;

 private:
  TaskRecord* Get(const std::string& id);
  void PushReady(TaskRecord& record, bool front, absl::Time now);
  void RemoveReady(TaskRecord& record);
  void Reset(TaskRecord& record);
  void ReleaseChildren(TaskRecord& parent, absl::Time now);
  void FailDependents(const TaskRecord& record, absl::Time now);
  absl::Status CheckDependencies(const std::vector<PlannedTask>& plan) const;

  std::unordered_map<std::string, std::unique_ptr<TaskRecord>> records_;
  std::vector<TaskRecord*> order_;
  std::unordered_map<std::string, std::vector<TaskRecord*>> submissions_;
  std::deque<std::string> ready_;
  Counters counters_;
};

// The record as GET /api/v1/tasks/{id} shows it.
Json RecordToJson(const TaskRecord& record, const std::vector<std::string>& dependencies_left);

// The record as the answer to a submission shows it.
Json SubmittedToJson(const TaskRecord& record, const std::vector<std::string>& dependencies_left);

}  // namespace flowmesh::orchestrator
