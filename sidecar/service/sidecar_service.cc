#include "sidecar/service/sidecar_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/json.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

// How soon a handler notices that its caller has gone, or that the server stops.
constexpr absl::Duration kLookAround = absl::Milliseconds(200);
constexpr absl::Duration kCancelWait = absl::Seconds(30);
constexpr uint32_t kDefaultListLimit = 100;
constexpr uint64_t kMaxResultBytes = 192u << 20;  // below gRPC's message limit

grpc::Status ToGrpc(const absl::Status& status) {
  // The numbers of both code spaces are the same.
  return {static_cast<grpc::StatusCode>(status.code()), Message(status)};
}

grpc::Status NoSuchTask(const std::string& task_id) {
  return {grpc::StatusCode::NOT_FOUND, absl::StrCat("no task ", task_id, " is known here")};
}

bool IsTerminal(const v1::TaskRecord& record) {
  return record.state() == v1::SUCCEEDED || record.state() == v1::FAILED;
}

absl::StatusOr<Json> ParseDocument(const std::string& text) {
  absl::StatusOr<Json> document = ParseJson(text);
  if (!document.ok()) return Annotate(document.status(), "document_json");
  if (!document->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("document_json: expected a map, got ", DescribeJson(*document)));
  }
  return document;
}

}  // namespace

absl::StatusOr<Worker*> SidecarService::Choose(const std::string& executor,
                                               const std::string& task_type) const {
  std::vector<std::string> names;
  Worker* best = nullptr;
  std::pair<bool, size_t> best_rank;
  for (Worker* worker : parts_.workers) {
    const ExecutorLink& link = worker->executor();
    names.push_back(link.name());
    if (link.name() == executor) return worker;
    const std::optional<v1::ExecutorDescription> description = link.description();
    const bool cannot =
        !description || std::find(description->runnable_task_types().begin(),
                                  description->runnable_task_types().end(),
                                  task_type) == description->runnable_task_types().end();
    const std::pair<bool, size_t> rank(
        cannot, worker->queue_depth() + (worker->running_task_id().empty() ? 0 : 1));
    if (best == nullptr || rank < best_rank) {
      best = worker;
      best_rank = rank;
    }
  }
  if (!executor.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "executor: expected one of ", absl::StrJoin(names, ", "), ", got \"", executor, "\""));
  }
  return best;
}

grpc::Status SidecarService::SubmitTask(grpc::ServerContext*, const v1::SubmitTaskRequest* request,
                                        v1::SubmitTaskResponse* response) {
  absl::StatusOr<Json> document = ParseDocument(request->document_json());
  if (!document.ok()) return ToGrpc(document.status());
  std::string task_id = request->task_id();
  const auto own = document->find("task_id");
  // As in an envelope (PROTOCOL.md 4.1).
  if (own != document->end() && own->is_number_integer()) *own = DumpJson(*own);
  if (task_id.empty()) {
    task_id = own != document->end() && own->is_string() ? own->get<std::string>() : RandomUuid();
  }
  response->set_task_id(task_id);
  if (const std::optional<v1::TaskRecord> known = parts_.tasks->Find(task_id)) {
    response->set_worker_id(known->worker_id());
    response->set_already_known(true);
    return grpc::Status::OK;
  }
  Envelope envelope =
      MakeLocalEnvelope(*std::move(document), task_id, "", FormatTimestamp(parts_.clock->Now()));
  if (!envelope.problem.ok()) return ToGrpc(envelope.problem);
  const absl::StatusOr<Worker*> worker =
      Choose(request->executor(), ToLower(Trim(envelope.task_type.value_or(""))));
  if (!worker.ok()) return ToGrpc(worker.status());
  envelope.worker_id = (*worker)->id();
  response->set_worker_id(envelope.worker_id);
  switch ((*worker)->Accept(std::move(envelope), kFromLocal, request->document_json().size())) {
    case Worker::Acceptance::kQueued:
      parts_.flush_journal();
      return grpc::Status::OK;
    case Worker::Acceptance::kDuplicate:
      response->set_already_known(true);
      return grpc::Status::OK;
    case Worker::Acceptance::kQuarantined:
      return {grpc::StatusCode::FAILED_PRECONDITION,
              "the task is quarantined: runs of it ended their rank or executor"};
    case Worker::Acceptance::kFull:
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full"};
    case Worker::Acceptance::kDraining:
      break;
  }
  return {grpc::StatusCode::FAILED_PRECONDITION, "the sidecar is stopping"};
}

void SidecarService::FillResult(v1::TaskRecord& record) const {
  if (!IsTerminal(record) || record.task_dir().empty()) return;
  absl::StatusOr<std::string> text =
      ReadFile(std::filesystem::path(record.task_dir()) / "responses.json", kMaxResultBytes);
  if (text.ok()) record.set_result_json(*std::move(text));
}

grpc::Status SidecarService::WatchTask(grpc::ServerContext* context,
                                       const v1::WatchTaskRequest* request,
                                       grpc::ServerWriter<v1::TaskUpdate>* writer) {
  uint64_t version = 0;
  uint64_t next = request->from_sequence();
  while (true) {
    std::optional<TaskTable::News> news =
        parts_.tasks->WaitForNews(request->task_id(), version, next, kLookAround);
    if (!news) return NoSuchTask(request->task_id());
    for (v1::TaskEvent& event : news->events) {
      v1::TaskUpdate update;
      // The first message always carries the record.
      if (version == 0) *update.mutable_record() = news->record;
      version = news->version;
      *update.mutable_event() = std::move(event);
      if (!writer->Write(update)) return grpc::Status::CANCELLED;
    }
    next = news->next_sequence;
    if (news->record_changed) {
      v1::TaskUpdate update;
      *update.mutable_record() = std::move(news->record);
      FillResult(*update.mutable_record());
      if (!writer->Write(update)) return grpc::Status::CANCELLED;
      if (IsTerminal(update.record())) return grpc::Status::OK;
    }
    version = news->version;
    if (context->IsCancelled() || stopping_) return grpc::Status::CANCELLED;
  }
}

grpc::Status SidecarService::GetTask(grpc::ServerContext*, const v1::GetTaskRequest* request,
                                     v1::TaskRecord* response) {
  std::optional<v1::TaskRecord> record = parts_.tasks->Find(request->task_id());
  if (!record) return NoSuchTask(request->task_id());
  *response = *std::move(record);
  FillResult(*response);
  return grpc::Status::OK;
}

grpc::Status SidecarService::ListTasks(grpc::ServerContext*, const v1::ListTasksRequest* request,
                                       v1::ListTasksResponse* response) {
  const uint32_t limit = request->limit() == 0 ? kDefaultListLimit : request->limit();
  for (v1::TaskRecord& record : parts_.tasks->List(limit, request->state())) {
    *response->add_tasks() = std::move(record);
  }
  return grpc::Status::OK;
}

grpc::Status SidecarService::CancelTask(grpc::ServerContext* context,
                                        const v1::CancelTaskRequest* request,
                                        v1::CancelTaskResponse* response) {
  if (!parts_.tasks->Find(request->task_id())) return NoSuchTask(request->task_id());
  for (Worker* worker : parts_.workers) {
    if (worker->Cancel(request->task_id(), "cancelled over the local API")) {
      response->set_was_active(true);
      break;
    }
  }
  if (!response->was_active()) return grpc::Status::OK;
  const absl::Duration deadline = parts_.clock->Monotonic() + kCancelWait;
  uint64_t version = 0;
  while (parts_.clock->Monotonic() < deadline && !context->IsCancelled() && !stopping_) {
    const std::optional<TaskTable::News> news = parts_.tasks->WaitForNews(
        request->task_id(), version, std::numeric_limits<uint64_t>::max(), kLookAround);
    if (!news || IsTerminal(news->record)) return grpc::Status::OK;
    version = news->version;
  }
  return {grpc::StatusCode::DEADLINE_EXCEEDED, "the task has not ended yet"};
}

grpc::Status SidecarService::GetWorker(grpc::ServerContext*, const v1::GetWorkerRequest*,
                                       v1::GetWorkerResponse* response) {
  response->set_version(FLOWMESH_VERSION);
  response->set_uptime_seconds(absl::ToDoubleSeconds(parts_.uptime()));
  response->set_redis(parts_.redis_state());
  for (const Worker* worker : parts_.workers) {
    v1::Worker& out = *response->add_workers();
    const ExecutorLink& link = worker->executor();
    out.set_worker_id(worker->id());
    out.set_status(std::string(ToText(worker->presence().true_status())));
    out.set_executor_name(link.name());
    out.set_executor_target(link.target());
    out.set_executor_connected(link.available());
    if (std::optional<v1::ExecutorDescription> description = link.description()) {
      *out.mutable_executor() = *std::move(description);
    }
    out.set_running_task_id(worker->running_task_id());
    out.set_queue_depth(static_cast<uint32_t>(worker->queue_depth()));
    out.set_hardware_json(DumpJson(worker->presence().hardware()));
  }
  return grpc::Status::OK;
}

grpc::Status SidecarService::Drain(grpc::ServerContext*, const v1::DrainRequest*,
                                   v1::DrainResponse* response) {
  uint32_t running = 0;
  for (const Worker* worker : parts_.workers) running += worker->running_task_id().empty() ? 0 : 1;
  parts_.start_drain();
  response->set_tasks_running(running);
  return grpc::Status::OK;
}

}  // namespace flowmesh::sidecar
