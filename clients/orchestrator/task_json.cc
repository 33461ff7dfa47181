// How task records look over HTTP.
#include "clients/orchestrator/task_table.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

Json TextOrNull(const std::string& text) { return text.empty() ? Json() : Json(text); }

Json SecondsOrNull(const std::optional<absl::Time>& time) {
  return time ? Json(absl::ToDoubleSeconds(*time - absl::UnixEpoch())) : Json();
}

std::string_view Category(const std::string& task_type) {
  const std::string type = ToLower(task_type);
  if (type == "inference") return "inference";
  if (type == "sft" || type == "lora_sft" || type == "ppo" || type == "dpo" || type == "training") {
    return "training";
  }
  return "other";
}

Json TopicOf(const TaskRecord& record) {
  return record.assigned_worker.empty() ? Json() : Json("tasks");
}

}  // namespace

Json RecordToJson(const TaskRecord& record, const std::vector<std::string>& dependencies_left) {
  return {
      {"task_id", record.task_id},
      {"submission_id", record.submission_id},
      {"raw_yaml", *record.raw_yaml},
      {"parsed", record.document},
      {"task_type", TextOrNull(record.task_type)},
      {"category", Category(record.task_type)},
      {"graph_node_name", TextOrNull(record.name)},
      {"load", record.load},
      {"status", TaskStatusName(record.status)},
      {"assigned_worker", TextOrNull(record.assigned_worker)},
      {"topic", TopicOf(record)},
      {"error", TextOrNull(record.error)},
      {"waiting_for", TextOrNull(record.waiting_for)},
      {"attempts", record.attempts},
      {"max_attempts", kMaxAttempts},
      {"last_failed_worker", TextOrNull(record.last_failed_worker)},
      {"last_error", TextOrNull(record.last_error)},
      {"next_retry_at", nullptr},
      {"submitted_at", FormatTimestamp(record.submitted_at)},
      {"submitted_ts", SecondsOrNull(record.submitted_at)},
      {"last_queue_ts", SecondsOrNull(record.queued_at)},
      {"dispatched_ts", SecondsOrNull(record.dispatched_at)},
      {"started_ts", SecondsOrNull(record.started_at)},
      {"finished_ts", SecondsOrNull(record.finished_at)},
      {"merged_children", record.merged_children},
      {"merged_parent_id", TextOrNull(record.merged_parent_id)},
      {"merge_slice", nullptr},
      {"merge_key", TextOrNull(record.merge_key)},
      {"parent_task_id", nullptr},
      {"shard_index", nullptr},
      {"shard_total", nullptr},
      {"depends_on", record.depends_on},
      {"pending_dependencies", dependencies_left},
      {"dependents", record.dependents},
      {"completed", record.status == TaskStatus::kDone},
      {"failed", record.status == TaskStatus::kFailed},
  };
}

Json SubmittedToJson(const TaskRecord& record, const std::vector<std::string>& dependencies_left) {
  return {
      {"task_id", record.task_id},
      {"status", TaskStatusName(record.status)},
      {"assigned_worker", TextOrNull(record.assigned_worker)},
      {"topic", TopicOf(record)},
      {"waiting_on", dependencies_left},
      {"depends_on", record.depends_on},
      {"attempts", record.attempts},
      {"max_attempts", kMaxAttempts},
      {"load", record.load},
      {"name", TextOrNull(record.name)},
  };
}

}  // namespace flowmesh::orchestrator
