#include "clients/cpp/sidecar_client.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <optional>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace flowmesh::client {
namespace {

constexpr absl::Duration kReconnectLimit = absl::Seconds(10);
constexpr absl::Duration kReconnectPause = absl::Milliseconds(100);
constexpr absl::Duration kLookPause = absl::Milliseconds(100);

std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  // A restarting sidecar is back within a second; gRPC's own back-off would look once in 20 s.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // How long one attempt to connect may take: a sidecar on a busy machine is slow, not away.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxReceiveMessageSize(-1);  // result documents have no bound
  arguments.SetMaxSendMessageSize(-1);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

std::string TimeText(const google::protobuf::Timestamp& time) {
  return FormatTimestamp(absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos()));
}

Json ParsedOrText(const std::string& text) {
  absl::StatusOr<Json> value = ParseJson(text);
  return value.ok() ? *std::move(value) : Json(text);
}

Json MessageToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  return status.ok() ? ParsedOrText(text) : Json::object();
}

}  // namespace

SidecarClient::SidecarClient(std::string target)
    : target_(std::move(target)),
      channel_(Connect(target_)),
      stub_(v1::Sidecar::NewStub(channel_)) {}

bool SidecarClient::WaitUntilConnected(absl::Duration limit) {
  return channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + limit));
}

absl::Status SidecarClient::FromGrpc(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    return absl::UnavailableError(
        absl::StrCat("no sidecar answers at ", target_, " (", status.error_message(), ")"));
  }
  // gRPC and Abseil number their codes alike.
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

template <typename Response, typename Request, typename Method>
absl::StatusOr<Response> SidecarClient::Call(Method method, const Request& request,
                                             absl::Duration deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + deadline));
  Response response;
  RETURN_IF_ERROR(FromGrpc((stub_.get()->*method)(&context, request, &response)));
  return response;
}

absl::StatusOr<v1::SubmitTaskResponse> SidecarClient::Submit(const Json& document,
                                                             const std::string& task_id,
                                                             const std::string& executor) {
  v1::SubmitTaskRequest request;
  request.set_document_json(DumpJson(document));
  request.set_task_id(task_id);
  request.set_executor(executor);
  return Call<v1::SubmitTaskResponse>(&v1::Sidecar::Stub::SubmitTask, request, absl::Seconds(10));
}

absl::StatusOr<v1::TaskRecord> SidecarClient::WatchOnce(const std::string& task_id,
                                                        const OnUpdate& on_update,
                                                        uint64_t& next_sequence) {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_) return absl::CancelledError("no longer watching");
    watches_.insert(&context);
  }
  v1::WatchTaskRequest request;
  request.set_task_id(task_id);
  request.set_from_sequence(next_sequence);
  const auto stream = stub_->WatchTask(&context, request);
  v1::TaskRecord last;
  v1::TaskUpdate update;
  while (stream->Read(&update)) {
    if (update.has_record()) last = update.record();
    if (update.has_event()) next_sequence = update.event().sequence() + 1;
    if (on_update) on_update(update);
  }
  const grpc::Status status = stream->Finish();
  {
    absl::MutexLock lock(&mutex_);
    watches_.erase(&context);
  }
  RETURN_IF_ERROR(FromGrpc(status));
  if (!IsTerminal(last.state())) {
    return absl::UnavailableError(absl::StrCat("the watch of task ", task_id, " ended too early"));
  }
  return last;
}

absl::StatusOr<v1::TaskRecord> SidecarClient::Watch(const std::string& task_id,
                                                    const OnUpdate& on_update) {
  const Clock& clock = Clock::Real();
  uint64_t next_sequence = 0;
  std::optional<absl::Duration> heard;
  const OnUpdate noting = [&](const v1::TaskUpdate& update) {
    heard = clock.Monotonic();
    if (on_update) on_update(update);
  };
  while (true) {
    absl::StatusOr<v1::TaskRecord> record = WatchOnce(task_id, noting, next_sequence);
    const bool may_come_back = heard && clock.Monotonic() - *heard <= kReconnectLimit;
    if (!absl::IsUnavailable(record.status()) || !may_come_back) return record;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&stopped_), kReconnectPause);
      if (stopped_) return absl::CancelledError("no longer watching");
    }
    WaitUntilConnected(kReconnectPause);
  }
}

void SidecarClient::StopWatching() {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  for (grpc::ClientContext* context : watches_) context->TryCancel();
}

absl::StatusOr<v1::TaskRecord> SidecarClient::Get(const std::string& task_id) {
  v1::GetTaskRequest request;
  request.set_task_id(task_id);
  return Call<v1::TaskRecord>(&v1::Sidecar::Stub::GetTask, request, absl::Seconds(5));
}

absl::StatusOr<v1::ListTasksResponse> SidecarClient::List(uint32_t limit, v1::TaskState state) {
  v1::ListTasksRequest request;
  request.set_limit(limit);
  request.set_state(state);
  return Call<v1::ListTasksResponse>(&v1::Sidecar::Stub::ListTasks, request, absl::Seconds(5));
}

absl::StatusOr<v1::CancelTaskResponse> SidecarClient::Cancel(const std::string& task_id) {
  v1::CancelTaskRequest request;
  request.set_task_id(task_id);
  return Call<v1::CancelTaskResponse>(&v1::Sidecar::Stub::CancelTask, request, absl::Seconds(30));
}

absl::StatusOr<v1::GetWorkerResponse> SidecarClient::Worker(absl::Duration deadline) {
  return Call<v1::GetWorkerResponse>(&v1::Sidecar::Stub::GetWorker, v1::GetWorkerRequest(),
                                     deadline);
}

absl::StatusOr<v1::DrainResponse> SidecarClient::Drain() {
  return Call<v1::DrainResponse>(&v1::Sidecar::Stub::Drain, v1::DrainRequest(), absl::Seconds(10));
}

absl::Status SidecarClient::WaitUntilGone(absl::Duration limit,
                                          const std::function<bool()>& cancelled) {
  const Clock& clock = Clock::Real();
  const absl::Duration begin = clock.Monotonic();
  while (true) {
    const absl::Duration waited = clock.Monotonic() - begin;
    const absl::StatusOr<v1::GetWorkerResponse> answer = Worker(absl::Seconds(1));
    if (absl::IsUnavailable(answer.status())) return absl::OkStatus();
    // Started after us: another life.
    if (answer.ok() && answer->uptime_seconds() < absl::ToDoubleSeconds(waited)) {
      return absl::OkStatus();
    }
    if (cancelled()) return absl::CancelledError("no longer waiting");
    if (waited >= limit) {
      return absl::DeadlineExceededError(absl::StrCat(
          "the sidecar at ", target_, " has not ended within ", absl::FormatDuration(limit)));
    }
    absl::SleepFor(kLookPause);
  }
}

Json ToJson(const v1::TaskRecord& record) {
  Json json = {{"task_id", record.task_id()},
               {"worker_id", record.worker_id()},
               {"task_type", record.task_type()},
               {"state", v1::TaskState_Name(record.state())},
               {"error", record.error().empty() ? Json() : Json(record.error())},
               {"task_dir", record.task_dir()},
               {"source", record.source()}};
  if (record.has_received_at()) json["received_at"] = TimeText(record.received_at());
  if (record.has_started_at()) json["started_at"] = TimeText(record.started_at());
  if (record.has_finished_at()) json["finished_at"] = TimeText(record.finished_at());
  if (record.has_progress()) json["progress"] = MessageToJson(record.progress());
  if (!record.result_json().empty()) json["result"] = ParsedOrText(record.result_json());
  return json;
}

Json ToJson(const v1::TaskUpdate& update) {
  Json json = Json::object();
  if (update.has_record()) json["record"] = ToJson(update.record());
  if (update.has_event()) json["event"] = MessageToJson(update.event());
  return json;
}

Json ToJson(const v1::GetWorkerResponse& response) {
  Json json = MessageToJson(response);
  for (Json& worker : json["workers"]) {
    if (worker.contains("hardware_json")) {
      worker["hardware"] = ParsedOrText(worker["hardware_json"]);
      worker.erase("hardware_json");
    }
  }
  return json;
}

}  // namespace flowmesh::client
