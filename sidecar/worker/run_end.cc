#include "sidecar/worker/run_end.h"

#include <google/protobuf/util/time_util.h>

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

// The cause of a dead rank, for the payload of the event.
Json DetailsOf(const v1::TaskFailed& failed) {
  Json details = {{"failure", v1::TaskFailed::Code_Name(failed.code())}};
  if (!failed.has_rank_failure()) return details;
  const v1::RankFailure& rank = failed.rank_failure();
  details["rank_failure"] = {{"rank", rank.rank()},
                             {"signal", rank.signal()},
                             {"exit_code", rank.exit_code()},
                             {"last_lines", Json::array()}};
  for (const std::string& line : rank.last_lines()) {
    details["rank_failure"]["last_lines"].push_back(line);
  }
  return details;
}

void ForEachString(Json& value, const std::function<void(std::string&)>& f) {
  if (value.is_string()) return f(value.get_ref<std::string&>());
  for (Json& inner : value) {
    if (inner.is_structured() || inner.is_string()) ForEachString(inner, f);
  }
}

v1::TaskRecord RecordOf(const JournalClosed& closed) {
  v1::TaskRecord record;
  record.set_task_id(closed.task.task_id);
  record.set_worker_id(closed.task.worker_id);
  record.set_source(closed.task.source);
  record.set_state(closed.error.empty() ? v1::SUCCEEDED : v1::FAILED);
  record.set_error(closed.error);
  record.set_task_dir(closed.task_dir);
  using google::protobuf::util::TimeUtil;
  *record.mutable_received_at() =
      TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(closed.task.received_at));
  *record.mutable_finished_at() =
      TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(closed.closed_at));
  return record;
}

}  // namespace

Outcome OutcomeOf(Ended ended, const std::string& executor, const std::string& token) {
  Outcome outcome;
  const absl::Status has_job = ended.job.status();
  if (has_job.ok()) outcome.job = *std::move(ended.job);
  if (auto* failed = std::get_if<v1::TaskFailed>(&ended.end)) {
    if (outcome.job) BlankSecrets(*outcome.job, token, *failed);
    const std::string text =
        failed->message().empty() ? "the executor gave no reason" : failed->message();
    outcome.status = failed->code() == v1::TaskFailed::INVALID_SPEC
                         ? absl::InvalidArgumentError(text)
                         : absl::UnknownError(text);
    outcome.details = DetailsOf(*failed);
    if (failed->code() == v1::TaskFailed::RANK_DIED) outcome.keep = JournalKeep::kDeath;
    if (!failed->result_json().empty()) {
      absl::StatusOr<Json> record = ParseJson(failed->result_json());
      if (record.ok()) outcome.failure_record = *std::move(record);
    }
  } else {
    auto& finished = std::get<v1::TaskFinished>(ended.end);
    absl::StatusOr<Json> result = ParseJson(finished.result_json());
    if (result.ok() && result->is_object() && !outcome.job) {
      outcome.keep = JournalKeep::kResult;
      outcome.status = Annotate(has_job, "its result is kept but cannot be delivered");
    } else if (result.ok() && result->is_object()) {
      outcome.keep = JournalKeep::kResult;
      outcome.job->result = *std::move(result);
      outcome.job->outputs.assign(finished.outputs().begin(), finished.outputs().end());
    } else {
      outcome.status = absl::InternalError(
          absl::StrCat("executor ", executor, ": result_json: expected a map, got ",
                       result.ok() ? DescribeJson(*result) : Message(result.status())));
    }
  }
  return outcome;
}

TaskEnd FailedBefore(const absl::Status& status) {
  v1::TaskFailed failed;
  failed.set_code(absl::IsInvalidArgument(status) ? v1::TaskFailed::INVALID_SPEC
                                                  : v1::TaskFailed::TASK_ERROR);
  failed.set_message(Message(status));
  return failed;
}

bool WasCancelled(const TaskEnd& end) {
  const auto* failed = std::get_if<v1::TaskFailed>(&end);
  return failed != nullptr && failed->code() == v1::TaskFailed::CANCELLED;
}

v1::TaskEvent ToEvent(const TaskEnd& end) {
  v1::TaskEvent event;
  if (const auto* finished = std::get_if<v1::TaskFinished>(&end)) {
    *event.mutable_finished() = *finished;
  } else {
    *event.mutable_failed() = std::get<v1::TaskFailed>(end);
  }
  return event;
}

TaskEnd FromEvent(v1::TaskEvent event) {
  if (event.has_finished()) return std::move(*event.mutable_finished());
  return std::move(*event.mutable_failed());
}

void BlankSecrets(const DeliveryJob& job, const std::string& token, v1::TaskFailed& failed) {
  std::vector<HttpRequest> requests = {
      {.url = job.task.output.url, .headers = job.task.output.headers}};
  for (const DeliveryUnit& child : job.children) {
    requests.push_back({.url = child.output.url, .headers = child.output.headers});
  }
  const auto blank = [&](std::string& text) {
    for (const HttpRequest& request : requests) {
      text = WithoutSecrets(std::move(text), request, {token});
    }
  };
  blank(*failed.mutable_message());
  absl::StatusOr<Json> record = ParseJson(failed.result_json());
  if (record.ok()) {
    ForEachString(*record, blank);
    failed.set_result_json(DumpJson(*record));
  }
  if (!failed.has_rank_failure()) return;
  for (std::string& line : *failed.mutable_rank_failure()->mutable_last_lines()) blank(line);
}

void RestoreClosed(const JournalClosed& closed, TaskTable& tasks) {
  tasks.Restore(RecordOf(closed), closed.task.dispatched_at);
  if (closed.keep != JournalKeep::kResult) return;
  tasks.SetReusable(closed.task.task_id,
                    {.journal_entry = closed.id, .fingerprint = closed.task.fingerprint});
}

std::string CauseOf(const absl::Status& status, const Json& details, JournalKeep keep) {
  if (absl::IsCancelled(status)) return "cancelled";
  const auto failure = details.find("failure");
  if (failure != details.end()) return ToLower(failure->get<std::string>());
  return keep == JournalKeep::kResult ? "delivery" : "refused";
}

}  // namespace flowmesh::sidecar
