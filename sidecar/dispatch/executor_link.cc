#include "sidecar/dispatch/executor_link.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/trace.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace flowmesh::sidecar {
namespace {

constexpr int kMaxMessageBytes = 256 << 20;
constexpr absl::Duration kDescribeTimeout = absl::Seconds(5);
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
// An executor without a health service is asked this often.
constexpr absl::Duration kPollInterval = absl::Seconds(1);
// How long a task waits for its executor to come back.
constexpr absl::Duration kLostLimit = absl::Seconds(60);
constexpr absl::Duration kBusyPause = absl::Milliseconds(20);

std::chrono::system_clock::time_point DeadlineIn(absl::Duration timeout) {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout);
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& target) {
  grpc::ChannelArguments arguments;
  // gRPC's own back-off of up to two minutes is far too slow for an executor that restarts.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Not a pause, whatever its name: the time that a connection gets to come about.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // Retries are ours, with Attach; both cost every call some of its time.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_CHANNELZ, 0);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // Two sidecar objects in one process, as in tests, must not share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  // The numbers of both code spaces are the same.
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

v1::TaskFailed Failure(v1::TaskFailed::Code code, std::string message) {
  v1::TaskFailed failed;
  failed.set_code(code);
  failed.set_message(std::move(message));
  return failed;
}

}  // namespace

// What one Run knows about its stream.
struct ExecutorLink::Stream {
  const std::string& traceparent;
  const std::function<void(const v1::TaskEvent&)>& on_event;
  const absl::Duration started;
  bool begun = false;   // the executor has sent an event: it knows the task
  uint64_t next = 0;    // sequence to go on from
  grpc::Status broken;  // why the last stream ended without an end of the task
};

ExecutorLink::ExecutorLink(std::string name, std::string target, const Clock& clock,
                           std::function<void()> on_change)
    : name_(std::move(name)),
      target_(std::move(target)),
      clock_(clock),
      on_change_(std::move(on_change)),
      channel_(MakeChannel(target_)),
      stub_(v1::Executor::NewStub(channel_)) {}

ExecutorLink::~ExecutorLink() { Stop(); }

void ExecutorLink::Start() {
  thread_ = std::thread([this] { Watch(); });
}

void ExecutorLink::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (watch_call_ != nullptr) watch_call_->TryCancel();
    if (task_call_ != nullptr) task_call_->TryCancel();
  }
  if (thread_.joinable()) thread_.join();
}

bool ExecutorLink::available() const {
  absl::MutexLock lock(&mutex_);
  return available_;
}

std::optional<v1::ExecutorDescription> ExecutorLink::description() const {
  absl::MutexLock lock(&mutex_);
  return description_;
}

uint64_t ExecutorLink::disconnects() const {
  absl::MutexLock lock(&mutex_);
  return disconnects_;
}

bool ExecutorLink::WaitAvailable(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  clock_.Await(mutex_, absl::Condition(this, &ExecutorLink::AvailableOrStoppingLocked), timeout);
  return available_;
}

bool ExecutorLink::Pause(absl::Duration duration) {
  absl::MutexLock lock(&mutex_);
  return !clock_.Await(mutex_, absl::Condition(this, &ExecutorLink::StoppingLocked), duration);
}

void ExecutorLink::SetAvailable(bool available) {
  {
    absl::MutexLock lock(&mutex_);
    if (available_ == available) return;
    available_ = available;
    if (!available) ++disconnects_;
  }
  if (available) {
    LogInfo("executor {} at {} is connected", name_, target_);
  } else {
    LogWarning("executor {} at {} is not available", name_, target_);
  }
  on_change_();
}

void ExecutorLink::Watch() {
  absl::Duration pause = kFirstPause;
  do {
    if (Describe(/*wait=*/true)) {
      pause = kFirstPause;
      WatchHealth();
      SetAvailable(false);
    } else {
      pause = std::min(pause * 2, kLongestPause);
    }
  } while (Pause(pause));
}

bool ExecutorLink::Describe(bool wait) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(kDescribeTimeout));
  // A connection comes about while a call waits for it: between calls that fail at once, gRPC looks
  // after its sockets every 5 s only.
  context.set_wait_for_ready(wait);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return false;
    watch_call_ = &context;
  }
  v1::ExecutorDescription description;
  const grpc::Status status = stub_->Describe(&context, {}, &description);
  absl::MutexLock lock(&mutex_);
  watch_call_ = nullptr;
  if (!status.ok()) return false;
  description_ = std::move(description);
  return true;
}

// Returns when the executor is no longer there, or no longer serves.
void ExecutorLink::WatchHealth() {
  // On a connection of its own: two threads that wait for one would wake each other.
  const auto health = grpc::health::v1::Health::NewStub(MakeChannel(target_));
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return;
    watch_call_ = &context;
  }
  const auto reader = health->Watch(&context, {});
  grpc::health::v1::HealthCheckResponse answer;
  while (reader->Read(&answer)) {
    const bool serving = answer.status() == grpc::health::v1::HealthCheckResponse::SERVING;
    SetAvailable(serving);
    if (!serving) context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  {
    absl::MutexLock lock(&mutex_);
    watch_call_ = nullptr;
  }
  if (status.error_code() != grpc::StatusCode::UNIMPLEMENTED) return;
  do {
    SetAvailable(true);
  } while (Pause(kPollInterval) && Describe(/*wait=*/false));
}

TaskEnd ExecutorLink::Lost(const std::string& why) const {
  return Failure(v1::TaskFailed::RANK_DIED,
                 absl::StrCat("executor ", name_, " was lost while the task ran: ", why));
}

TaskEnd ExecutorLink::Run(const v1::ExecuteRequest& request, const std::string& traceparent,
                          const std::function<void(const v1::TaskEvent&)>& on_event) {
  Stream stream{.traceparent = traceparent, .on_event = on_event, .started = clock_.Monotonic()};
  while (true) {
    if (std::optional<TaskEnd> end = Follow(request, stream)) return *std::move(end);
    if (std::optional<TaskEnd> end = AfterBreak(request, stream)) return *std::move(end);
  }
}

std::optional<TaskEnd> ExecutorLink::Follow(const v1::ExecuteRequest& request, Stream& stream) {
  grpc::ClientContext context;
  context.AddMetadata(kTraceparent, stream.traceparent);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return Failure(v1::TaskFailed::INTERNAL, "the sidecar is stopping");
    task_call_ = &context;
  }
  std::unique_ptr<grpc::ClientReader<v1::TaskEvent>> reader;
  if (stream.begun) {
    v1::AttachRequest attach;
    attach.set_task_id(request.task_id());
    attach.set_attempt(request.attempt());
    attach.set_from_sequence(stream.next);
    reader = stub_->Attach(&context, attach);
  } else {
    reader = stub_->Execute(&context, request);
  }
  std::optional<TaskEnd> end;
  v1::TaskEvent event;
  while (reader->Read(&event)) {
    stream.begun = true;
    if (event.sequence() < stream.next) continue;
    stream.next = event.sequence() + 1;
    stream.on_event(event);
    if (event.has_finished()) end = std::move(*event.mutable_finished());
    if (event.has_failed()) end = std::move(*event.mutable_failed());
  }
  stream.broken = reader->Finish();
  absl::MutexLock lock(&mutex_);
  task_call_ = nullptr;
  return end;
}

std::optional<TaskEnd> ExecutorLink::AfterBreak(const v1::ExecuteRequest& request, Stream& stream) {
  const grpc::Status& status = stream.broken;
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return Failure(v1::TaskFailed::INTERNAL,
                     absl::StrCat("executor ", name_, " ended the task's events without an end"));
    case grpc::StatusCode::NOT_FOUND:
      return Lost("it restarted");
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::INTERNAL:
      return Failure(v1::TaskFailed::INTERNAL,
                     absl::StrCat("executor ", name_, ": ", status.error_message()));
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      // Once the task runs this is gRPC's own word for an event beyond the message limit. Before,
      // the executor is busy with a task that is not ours: that ends, or it is not for us alone.
      if (stream.begun) return Failure(v1::TaskFailed::TASK_ERROR, status.error_message());
      if (clock_.Monotonic() - stream.started > kLostLimit) {
        return Failure(v1::TaskFailed::TASK_ERROR,
                       absl::StrCat("executor ", name_, " stays busy: ", status.error_message()));
      }
      if (!Pause(kBusyPause)) return Lost("the sidecar stops");
      return std::nullopt;
    default:
      break;
  }
  LogWarning("task {}: the stream from executor {} broke: {}", request.task_id(), name_,
             status.error_message());
  // The watcher may not have noticed yet; without a pause this would spin until it does.
  if (!Pause(kBusyPause)) return Lost("the sidecar stops");
  if (!WaitAvailable(kLostLimit)) return Lost(status.error_message());
  return std::nullopt;
}

absl::StatusOr<bool> ExecutorLink::Cancel(const std::string& task_id, absl::Duration grace,
                                          const std::string& reason) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(grace + absl::Seconds(10)));
  v1::CancelRequest request;
  request.set_task_id(task_id);
  request.set_grace_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(grace)));
  request.set_reason(reason);
  v1::CancelResponse response;
  const grpc::Status status = stub_->Cancel(&context, request, &response);
  if (!status.ok()) return Annotate(FromGrpc(status), absl::StrCat("executor ", name_));
  return response.was_running();
}

absl::StatusOr<v1::Telemetry> ExecutorLink::Telemetry(absl::Duration timeout) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(timeout));
  v1::Telemetry telemetry;
  const grpc::Status status = stub_->GetTelemetry(&context, {}, &telemetry);
  if (!status.ok()) return FromGrpc(status);
  return telemetry;
}

}  // namespace flowmesh::sidecar
