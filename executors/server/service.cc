#include "executors/server/service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "common/log.h"
#include "common/trace.h"

namespace flowmesh::executor {
namespace {

// How soon a handler notices that its caller has gone, or that the server shuts down.
constexpr absl::Duration kLookAround = absl::Milliseconds(200);
constexpr uint32_t kMaxGraceMs = 10 * 60 * 1000;

grpc::Status ToGrpc(const absl::Status& status) {
  // The numbers of both code spaces are the same.
  return {static_cast<grpc::StatusCode>(status.code()), Message(status)};
}

// The trace that the caller's metadata names; empty when it names none.
std::string TraceparentOf(const grpc::ServerContext& context) {
  const auto given = context.client_metadata().find(kTraceparent);
  if (given == context.client_metadata().end()) return "";
  const std::string text(given->second.data(), given->second.size());
  return ParseTraceparent(text) ? text : "";
}

}  // namespace

ExecutorService::ExecutorService(ExecutorCore& core, v1::ExecutorDescription description,
                                 std::function<v1::Telemetry()> telemetry)
    : core_(core), description_(std::move(description)), telemetry_(std::move(telemetry)) {}

grpc::Status ExecutorService::Describe(grpc::ServerContext*, const v1::DescribeRequest*,
                                       v1::ExecutorDescription* response) {
  if (core_.stopping()) return {grpc::StatusCode::UNAVAILABLE, "the executor is stopping"};
  *response = description_;
  response->set_running_task_id(core_.running_task_id());
  return grpc::Status::OK;
}

grpc::Status ExecutorService::Execute(grpc::ServerContext* context,
                                      const v1::ExecuteRequest* request,
                                      grpc::ServerWriter<v1::TaskEvent>* writer) {
  const absl::StatusOr<std::shared_ptr<EventLog>> log = core_.Execute(*request);
  if (!log.ok()) return ToGrpc(log.status());
  const std::string traceparent = TraceparentOf(*context);
  if (!traceparent.empty()) LogInfo("task {}, trace {}", request->task_id(), traceparent);
  return Stream(context, **log, 0, writer);
}

grpc::Status ExecutorService::Attach(grpc::ServerContext* context, const v1::AttachRequest* request,
                                     grpc::ServerWriter<v1::TaskEvent>* writer) {
  const absl::StatusOr<std::shared_ptr<EventLog>> log =
      core_.Attach(request->task_id(), request->attempt());
  if (!log.ok()) return ToGrpc(log.status());
  return Stream(context, **log, request->from_sequence(), writer);
}

grpc::Status ExecutorService::Stream(grpc::ServerContext* context, const EventLog& log,
                                     uint64_t from, grpc::ServerWriter<v1::TaskEvent>* writer) {
  // On its own: a first message that may wait in the transport's buffer would make the metadata,
  // and so the write itself, wait with it.
  writer->SendInitialMetadata();
  while (true) {
    const EventLog::Batch batch = log.Read(from, kLookAround);
    from = batch.next;
    for (size_t i = 0; i < batch.events.size(); ++i) {
      // All but the last of a batch may wait for the next in the transport's buffer; the very last
      // leaves together with the status.
      const bool last = i + 1 == batch.events.size();
      grpc::WriteOptions options;
      if (!last) options.set_buffer_hint();
      if (last && batch.complete) options.set_last_message();
      if (!writer->Write(*batch.events[i], options)) {
        return {grpc::StatusCode::CANCELLED, "the caller has gone"};
      }
    }
    if (batch.complete) return grpc::Status::OK;
    if (context->IsCancelled()) return {grpc::StatusCode::CANCELLED, "the caller has gone"};
  }
}

grpc::Status ExecutorService::Cancel(grpc::ServerContext*, const v1::CancelRequest* request,
                                     v1::CancelResponse* response) {
  const absl::Duration grace = absl::Milliseconds(std::min(request->grace_ms(), kMaxGraceMs));
  response->set_was_running(core_.Cancel(request->task_id(), grace, request->reason()));
  return grpc::Status::OK;
}

grpc::Status ExecutorService::GetTelemetry(grpc::ServerContext*, const v1::GetTelemetryRequest*,
                                           v1::Telemetry* response) {
  *response = telemetry_();
  return grpc::Status::OK;
}

}  // namespace flowmesh::executor
