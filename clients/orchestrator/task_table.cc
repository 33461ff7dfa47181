#include "clients/orchestrator/task_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "clients/orchestrator/merge.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

int64_t EstimatedLoad(const Json& document) {
  const absl::StatusOr<int64_t> load =
      Field(&document, "")["spec"]["resources"]["estimatedLoad"].IntOr(0);
  return load.value_or(0);
}

std::string TaskType(const Json& document) {
  const Json& type = Field(&document, "")["spec"]["taskType"].json();
  return type.is_string() ? std::string(Trim(type.get_ref<const std::string&>())) : "";
}

}  // namespace

std::string_view TaskStatusName(TaskStatus status) {
  switch (status) {
    case TaskStatus::kPending:
      return "PENDING";
    case TaskStatus::kDispatched:
      return "DISPATCHED";
    case TaskStatus::kDone:
      return "DONE";
    case TaskStatus::kFailed:
      return "FAILED";
  }
  return "PENDING";
}

absl::Status TaskTable::CheckDependencies(const std::vector<PlannedTask>& plan) const {
  for (const PlannedTask& task : plan) {
    for (const std::string& id : task.after_ids) {
      const std::string of = task.name.empty() ? "" : absl::StrCat(" of \"", task.name, "\"");
      const TaskRecord* other = Find(id);
      if (other == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat(
            "dependsOn", of, ": expected a name of this submission or a known task id, got \"", id,
            "\""));
      }
      if (other->status == TaskStatus::kFailed) {
        return absl::InvalidArgumentError(
            absl::StrCat("dependsOn", of, ": task ", id, " has failed"));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> TaskTable::Add(std::vector<PlannedTask> plan,
                                                        std::string raw_yaml, absl::Time now) {
  RETURN_IF_ERROR(CheckDependencies(plan));
  const std::string submission = RandomUuid();
  const auto yaml = std::make_shared<const std::string>(std::move(raw_yaml));
  std::vector<std::string> ids;
  for (PlannedTask& task : plan) {
    auto record = std::make_unique<TaskRecord>();
    record->task_id = RandomUuid();
    record->submission_id = submission;
    record->raw_yaml = yaml;
    record->name = std::move(task.name);
    record->task_type = TaskType(task.document);
    record->merge_key = MergeKey(task.document);
    record->load = EstimatedLoad(task.document);
    record->document = std::move(task.document);
    record->submitted_at = now;
    for (const size_t place : task.after) record->depends_on.push_back(ids[place]);
    for (const std::string& id : task.after_ids) record->depends_on.push_back(id);
    ids.push_back(record->task_id);

    TaskRecord* const added = record.get();
    records_.emplace(added->task_id, std::move(record));
    order_.push_back(added);
    submissions_[submission].push_back(added);
    for (const std::string& id : added->depends_on) Get(id)->dependents.push_back(added->task_id);
    ++counters_.submitted;
    if (DependenciesLeft(*added).empty()) PushReady(*added, /*front=*/false, now);
  }
  return ids;
}

const TaskRecord* TaskTable::Find(const std::string& id) const {
  const auto record = records_.find(id);
  return record == records_.end() ? nullptr : record->second.get();
}

TaskRecord* TaskTable::Get(const std::string& id) {
  return const_cast<TaskRecord*>(std::as_const(*this).Find(id));
}

std::vector<const TaskRecord*> TaskTable::All() const { return {order_.begin(), order_.end()}; }

std::vector<const TaskRecord*> TaskTable::Submission(const std::string& submission_id) const {
  const auto members = submissions_.find(submission_id);
  if (members == submissions_.end()) return {};
  return {members->second.begin(), members->second.end()};
}

std::vector<std::string> TaskTable::DispatchedTo(std::string_view worker) const {
  std::vector<std::string> ids;
  for (const TaskRecord* record : order_) {
    if (record->status == TaskStatus::kDispatched && record->assigned_worker == worker &&
        record->merged_parent_id.empty()) {
      ids.push_back(record->task_id);
    }
  }
  return ids;
}

std::vector<std::string> TaskTable::DependenciesLeft(const TaskRecord& record) const {
  std::vector<std::string> left;
  for (const std::string& id : record.depends_on) {
    if (Find(id)->status != TaskStatus::kDone) left.push_back(id);
  }
  return left;
}

std::vector<std::string> TaskTable::MergeSiblings(const std::string& id) const {
  std::vector<std::string> siblings;
  const TaskRecord* record = Find(id);
  if (record == nullptr || record->merge_key.empty()) return siblings;
  for (const std::string& other : ready_) {
    if (other != id && Find(other)->merge_key == record->merge_key) siblings.push_back(other);
  }
  return siblings;
}

void TaskTable::NoteWaiting(const std::string& id, std::string reason) {
  if (TaskRecord* record = Get(id)) record->waiting_for = std::move(reason);
}

void TaskTable::PushReady(TaskRecord& record, bool front, absl::Time now) {
  if (record.queued) return;
  if (front) {
    ready_.push_front(record.task_id);
  } else {
    ready_.push_back(record.task_id);
  }
  record.queued = true;
  record.queued_at = now;
}

void TaskTable::RemoveReady(TaskRecord& record) {
  if (!record.queued) return;
  ready_.erase(std::find(ready_.begin(), ready_.end(), record.task_id));
  record.queued = false;
}

void TaskTable::Reset(TaskRecord& record) {
  record.status = TaskStatus::kPending;
  record.in_flight = false;
  record.assigned_worker.clear();
  record.merged_children.clear();
  record.merged_parent_id.clear();
  record.dispatched_at.reset();
  record.started_at.reset();
  record.waiting_for.clear();
}

bool TaskTable::Take(const std::string& id, const std::vector<std::string>& children) {
  TaskRecord& parent = *Get(id);
  const bool all_wait =
      parent.queued && std::all_of(children.begin(), children.end(),
                                   [&](const std::string& child) { return Get(child)->queued; });
  if (!all_wait) return false;
  RemoveReady(parent);
  parent.in_flight = true;
  parent.merged_children = children;
  for (const std::string& child_id : children) {
    TaskRecord& child = *Get(child_id);
    RemoveReady(child);
    child.in_flight = true;
    child.merged_parent_id = id;
  }
  return true;
}

void TaskTable::MarkDispatched(const std::string& id, const std::string& worker,
                               const std::vector<std::string>& children, absl::Time now) {
  for (const std::string& member : children) {
    if (TaskRecord& child = *Get(member); child.in_flight) {
      child.status = TaskStatus::kDispatched;
      child.assigned_worker = worker;
      child.dispatched_at = now;
      child.in_flight = false;
    }
  }
  TaskRecord& record = *Get(id);
  record.status = TaskStatus::kDispatched;
  record.assigned_worker = worker;
  record.dispatched_at = now;
  record.in_flight = false;
  record.waiting_for.clear();
}

void TaskTable::ReleaseChildren(TaskRecord& parent, absl::Time now) {
  const std::vector<std::string> children = std::move(parent.merged_children);
  parent.merged_children.clear();
  for (auto id = children.rbegin(); id != children.rend(); ++id) {
    TaskRecord& child = *Get(*id);
    if (child.merged_parent_id != parent.task_id) continue;
    if (child.status == TaskStatus::kDone || child.status == TaskStatus::kFailed) continue;
    Reset(child);
    PushReady(child, /*front=*/true, now);
    ++counters_.requeued;
  }
}

void TaskTable::AttemptFailed(const std::string& id, const std::string& worker, std::string reason,
                              absl::Time now) {
  TaskRecord* record = Get(id);
  if (record == nullptr || record->status == TaskStatus::kDone ||
      record->status == TaskStatus::kFailed) {
    return;
  }
  ++record->attempts;
  record->last_error = std::move(reason);
  if (!worker.empty()) record->last_failed_worker = worker;
  if (record->attempts >= kMaxAttempts) {
    Fail(id, "max_attempts_exceeded", now);
    return;
  }
  std::vector<std::string> children = std::move(record->merged_children);
  Reset(*record);
  PushReady(*record, /*front=*/true, now);
  ++counters_.requeued;
  record->merged_children = std::move(children);
  ReleaseChildren(*record, now);
}

void TaskTable::Fail(const std::string& id, std::string error, absl::Time now) {
  TaskRecord* record = Get(id);
  if (record == nullptr || record->status == TaskStatus::kDone ||
      record->status == TaskStatus::kFailed) {
    return;
  }
  RemoveReady(*record);
  record->status = TaskStatus::kFailed;
  record->in_flight = false;
  record->error = std::move(error);
  record->waiting_for.clear();
  record->finished_at = now;
  ++counters_.failed;
  ReleaseChildren(*record, now);
  FailDependents(*record, now);
}

// A task behind a failed one can never run, so the failure goes all the way down.
void TaskTable::FailDependents(const TaskRecord& record, absl::Time now) {
  for (const std::string& id : record.dependents) {
    Fail(id, absl::StrCat("Dependency ", record.task_id, " failed"), now);
  }
}

void TaskTable::Started(const std::string& id, const std::string& worker, absl::Time now) {
  TaskRecord* record = Get(id);
  if (record == nullptr || record->status == TaskStatus::kDone ||
      record->status == TaskStatus::kFailed) {
    return;
  }
  RemoveReady(*record);
  record->status = TaskStatus::kDispatched;
  record->assigned_worker = worker;
  record->started_at = now;
}

std::vector<std::string> TaskTable::Succeeded(const std::string& id, absl::Time now) {
  TaskRecord* record = Get(id);
  if (record == nullptr || record->status == TaskStatus::kDone ||
      record->status == TaskStatus::kFailed) {
    return {};
  }
  RemoveReady(*record);
  record->status = TaskStatus::kDone;
  record->in_flight = false;
  record->error.clear();
  record->waiting_for.clear();
  record->finished_at = now;
  ++counters_.succeeded;
  for (const std::string& dependent_id : record->dependents) {
    TaskRecord& dependent = *Get(dependent_id);
    if (dependent.status == TaskStatus::kPending && DependenciesLeft(dependent).empty()) {
      PushReady(dependent, /*front=*/false, now);
    }
  }
  return record->merged_children;
}

bool TaskTable::IsRunningOn(const TaskRecord& record, std::string_view worker) const {
  if (record.in_flight) return true;
  return record.status == TaskStatus::kDispatched && record.assigned_worker == worker;
}

}  // namespace flowmesh::orchestrator
