#include "sidecar/dispatch/executor_link.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/trace.h"

namespace flowmesh::sidecar {
namespace {

constexpr int kMaxMessageBytes = 256 << 20;
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(1);
// An executor without a health service is asked this often.
constexpr absl::Duration kPollInterval = absl::Seconds(1);
// What a task that hangs gets to end by itself.
constexpr absl::Duration kHungGrace = absl::Seconds(5);
constexpr absl::Duration kBusyPause = absl::Milliseconds(20);
constexpr absl::Duration kLongestBusyPause = absl::Milliseconds(320);
// A stream that lasted so long was no refusal.
constexpr absl::Duration kServed = absl::Seconds(5);

std::chrono::system_clock::time_point DeadlineIn(absl::Duration timeout) {
  // What the system's clock can hold.
  timeout = std::min(timeout, absl::Hours(24 * 365));
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
  // The task is turned away by an executor that is there; true: for longer than `limit` now.
  bool IsRefused(absl::Duration now, absl::Duration limit) {
    if (!refused_since) refused_since = now;
    return now - *refused_since > limit;
  }
  absl::Duration NextPause() {
    return std::exchange(pause, std::min(pause * 2, kLongestBusyPause));
  }
  void Served() {
    refused_since.reset();
    pause = kBusyPause;
  }

  const std::string& traceparent;
  const std::function<void(const v1::TaskEvent&)>& on_event;
  absl::Duration opened, last_event;
  bool begun = false;   // the executor has sent an event: it knows the task
  std::string sent_to;  // the first instance that got it for certain
  uint64_t next = 0;    // sequence to go on from
  grpc::Status broken;  // why the last stream ended without an end of the task
  std::optional<absl::Duration> refused_since;
  absl::Duration pause = kBusyPause;
};

ExecutorLink::ExecutorLink(std::string name, std::string target, ExecutorLinkOptions options,
                           const Clock& clock, std::function<void()> on_change)
    : name_(std::move(name)),
      target_(std::move(target)),
      options_(options),
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
    for (grpc::ClientContext* call : cancel_calls_) call->TryCancel();
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
  clock_.Await(mutex_, absl::Condition(this, &ExecutorLink::WaitIsOverLocked), timeout);
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
    if (Describe(/*wait=*/true).ok()) {
      pause = kFirstPause;
      CancelAgain();
      WatchHealth();
      SetAvailable(false);
    } else {
      // What runs on one that does not answer waits as for any other that is away.
      BreakTaskCall();
      pause = std::min(pause * 2, kLongestPause);
    }
  } while (Pause(pause));
}

grpc::Status ExecutorLink::Describe(bool wait) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(options_.answer_timeout));
  // A connection comes about while a call waits for it: between calls that fail at once, gRPC looks
  // after its sockets every 5 s only.
  context.set_wait_for_ready(wait);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return grpc::Status::CANCELLED;
    watch_call_ = &context;
  }
  v1::ExecutorDescription description;
  const grpc::Status status = stub_->Describe(&context, {}, &description);
  absl::MutexLock lock(&mutex_);
  watch_call_ = nullptr;
  if (status.ok()) description_ = std::move(description);
  return status;
}

// A process that was stopped keeps its connections, and one that is stuck may have said SERVING
// before that.
bool ExecutorLink::Answers() {
  for (int tries = 0; tries < 2; ++tries) {
    const grpc::Status status = Describe(/*wait=*/false);
    if (status.ok()) return true;
    if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) return false;
  }
  LogWarning("executor {} at {} does not answer", name_, target_);
  return false;
}

// Returns when the executor is no longer there, or no longer serves.
void ExecutorLink::WatchHealth() {
  // On a connection of its own: two threads that wait for one would wake each other.
  const auto health = grpc::health::v1::Health::NewStub(MakeChannel(target_));
  while (true) {
    const grpc::StatusCode over = WatchHealthOnce(*health);
    if (over == grpc::StatusCode::UNIMPLEMENTED) {
      SetAvailable(true);
      if (!Pause(std::min(kPollInterval, options_.check_interval))) return;
    } else if (over != grpc::StatusCode::DEADLINE_EXCEEDED) {
      return;
    }
    if (!Answers()) return;
  }
}

// Watches for as long as an executor is not asked anything; DEADLINE_EXCEEDED: that time is over.
grpc::StatusCode ExecutorLink::WatchHealthOnce(grpc::health::v1::Health::Stub& health) {
  grpc::ClientContext context;
  context.set_deadline(DeadlineIn(options_.check_interval));
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return grpc::StatusCode::CANCELLED;
    watch_call_ = &context;
  }
  const auto reader = health.Watch(&context, {});
  grpc::health::v1::HealthCheckResponse answer;
  while (reader->Read(&answer)) {
    const bool serving = answer.status() == grpc::health::v1::HealthCheckResponse::SERVING;
    SetAvailable(serving);
    if (!serving) context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  absl::MutexLock lock(&mutex_);
  watch_call_ = nullptr;
  return status.error_code();
}

void ExecutorLink::BreakTaskCall() {
  absl::MutexLock lock(&mutex_);
  if (task_call_ != nullptr) task_call_->TryCancel();
}

void ExecutorLink::CancelAgain() {
  std::string task_id;
  {
    absl::MutexLock lock(&mutex_);
    task_id = std::exchange(owed_cancel_, "");
    if (task_id.empty() || description_->running_task_id() != task_id) return;
  }
  LogInfo("executor {} still runs task {}: it is cancelled", name_, task_id);
  (void)Cancel(task_id, kHungGrace, "it was cancelled while the executor was away");
}

TaskEnd ExecutorLink::Lost(const std::string& why) const {
  return Failure(v1::TaskFailed::RANK_DIED,
                 absl::StrCat("executor ", name_, " was lost while the task ran: ", why));
}

std::optional<TaskEnd> ExecutorLink::CancelledEnd(bool is_gone) const {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_ || (available_ && !cancel_failed_ && !is_gone)) return std::nullopt;
  return Failure(v1::TaskFailed::CANCELLED, *cancelled_);
}

bool ExecutorLink::HasRestartedSince(const std::string& instance_id) const {
  absl::MutexLock lock(&mutex_);
  return !instance_id.empty() && description_->instance_id() != instance_id;
}

// Nobody answered a health check in vain: it is the task that makes no step.
TaskEnd ExecutorLink::EndHung(const std::string& task_id) {
  const absl::StatusOr<bool> ended = Cancel(task_id, kHungGrace, "it hangs");
  return Failure(
      v1::TaskFailed::HUNG,
      absl::StrCat("the task hung: executor ", name_, " said nothing of it for ",
                   absl::FormatDuration(options_.silence_limit), " (TASK_SILENCE_TIMEOUT_SEC); ",
                   ended.ok() ? "it was ended" : "the executor does not answer"));
}

TaskEnd ExecutorLink::Run(const v1::ExecuteRequest& request, const std::string& traceparent,
                          const std::function<void(const v1::TaskEvent&)>& on_event) {
  {
    absl::MutexLock lock(&mutex_);
    task_id_ = request.task_id();
    cancelled_.reset();
    cancel_failed_ = false;
    if (owed_cancel_ == task_id_) owed_cancel_.clear();
  }
  const absl::Duration now = clock_.Monotonic();
  Stream stream{.traceparent = traceparent, .on_event = on_event, .opened = now, .last_event = now};
  std::optional<TaskEnd> end;
  while (!end) {
    end = Follow(request, stream);
    if (!end) end = AfterBreak(request, stream);
  }
  absl::MutexLock lock(&mutex_);
  task_id_.clear();
  cancelled_.reset();
  return *std::move(end);
}

std::optional<TaskEnd> ExecutorLink::Follow(const v1::ExecuteRequest& request, Stream& stream) {
  grpc::ClientContext context;
  context.AddMetadata(kTraceparent, stream.traceparent);
  stream.opened = clock_.Monotonic();
  if (options_.silence_limit != absl::InfiniteDuration()) {
    // Somewhat late rather than early: what is not silent is attached to again.
    const absl::Duration silent = clock_.Monotonic() - stream.last_event;
    context.set_deadline(DeadlineIn(options_.silence_limit - silent + kBusyPause));
  }
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return Failure(v1::TaskFailed::INTERNAL, "the sidecar is stopping");
    task_call_ = &context;
    // Without a connection the call may meet nobody, or an instance not yet described.
    const bool connected = channel_->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_READY;
    if (stream.sent_to.empty() && connected && description_) {
      stream.sent_to = description_->instance_id();
    }
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
    stream.last_event = clock_.Monotonic();
    stream.Served();
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
  if (clock_.Monotonic() - stream.opened >= kServed) stream.Served();
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return Failure(v1::TaskFailed::INTERNAL,
                     absl::StrCat("executor ", name_, " ended the task's events without an end"));
    case grpc::StatusCode::NOT_FOUND:
      if (std::optional<TaskEnd> end = CancelledEnd(/*is_gone=*/true)) return end;
      return Lost("it restarted");
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      if (clock_.Monotonic() - stream.last_event >= options_.silence_limit) {
        return EndHung(request.task_id());
      }
      break;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      // Once the task runs this is gRPC's own word for an event beyond the message limit. Before,
      // the executor drains, or is busy with a task that is not ours: that ends, or it is not for
      // us alone.
      if (stream.begun) return Failure(v1::TaskFailed::TASK_ERROR, status.error_message());
      if (std::optional<TaskEnd> end = CancelledEnd(/*is_gone=*/true)) return end;
      if (stream.IsRefused(clock_.Monotonic(), options_.lost_limit)) {
        return Failure(v1::TaskFailed::TASK_ERROR,
                       absl::StrCat("executor ", name_, " stays busy: ", status.error_message()));
      }
      stream.sent_to.clear();  // it was not taken
      if (!Pause(stream.NextPause())) return Lost("the sidecar stops");
      return std::nullopt;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      break;
    default:
      // The executor's own word, which it would say again.
      return Failure(v1::TaskFailed::INTERNAL,
                     absl::StrCat("executor ", name_, ": ", FromGrpc(status).ToString()));
  }
  if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
    LogWarning("task {}: the stream from executor {} broke: {}", request.task_id(), name_,
               status.error_message());
  }
  // The watcher may not have noticed yet; without a pause this would spin until it does.
  if (!Pause(stream.NextPause())) return Lost("the sidecar stops");
  if (!available()) stream.Served();
  const bool is_back = WaitAvailable(options_.lost_limit);
  // One that has not begun is not sent again once it is cancelled.
  if (std::optional<TaskEnd> end = CancelledEnd(/*is_gone=*/!stream.begun)) return end;
  if (!is_back) {
    absl::MutexLock lock(&mutex_);
    owed_cancel_ = request.task_id();
    return Lost(status.error_code() == grpc::StatusCode::CANCELLED ? "it does not answer"
                                                                   : status.error_message());
  }
  if (stream.IsRefused(clock_.Monotonic(), options_.lost_limit)) {
    const std::string why = absl::StrCat("it turns the task away: ", status.error_message());
    if (!stream.begun) {
      return Failure(v1::TaskFailed::TASK_ERROR, absl::StrCat("executor ", name_, ": ", why));
    }
    (void)Cancel(request.task_id(), kHungGrace, why);
    return Lost(why);
  }
  // Its first event may never have left an executor that the task has ended.
  if (!stream.begun && HasRestartedSince(stream.sent_to)) return Lost("it restarted");
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
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return absl::UnavailableError("the sidecar stops");
    if (task_id_ == task_id && !cancelled_) cancelled_ = reason;
    cancel_calls_.insert(&context);
  }
  v1::CancelResponse response;
  const grpc::Status status = stub_->Cancel(&context, request, &response);
  absl::MutexLock lock(&mutex_);
  cancel_calls_.erase(&context);
  if (status.ok()) return response.was_running();
  owed_cancel_ = task_id;
  if (task_id_ == task_id) {
    cancel_failed_ = true;
    if (task_call_ != nullptr) task_call_->TryCancel();
  }
  return Annotate(FromGrpc(status), absl::StrCat("executor ", name_));
}

void ExecutorLink::AbandonCancels() {
  absl::MutexLock lock(&mutex_);
  for (grpc::ClientContext* call : cancel_calls_) call->TryCancel();
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
