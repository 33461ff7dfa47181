#include "sidecar/delivery/sender.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/redact.h"

namespace flowmesh::sidecar {
namespace {

// What leaves at once of a paced body, as time.
constexpr absl::Duration kPiece = absl::Milliseconds(20);
// Of an answer, for the text of a failure.
constexpr uint64_t kKeptAnswer = 4 << 10;
// A piece that left late does not hold those after it up, unless it was later than this.
constexpr absl::Duration kMostCatchUp = absl::Milliseconds(200);

// One per delivering thread: it keeps its connections.
HttpClient& Client() {
  static thread_local HttpClient client;
  return client;
}

}  // namespace

Sender::Sender(const DelivererOptions& options, const Clock& clock, Throttle& throttle,
               std::function<bool()> is_cancelled)
    : options_(options),
      clock_(clock),
      throttle_(throttle),
      is_cancelled_(std::move(is_cancelled)),
      schedule_(options.delivery_timeout) {}

size_t Sender::Pace(size_t bytes, absl::Duration& earliest) {
  const absl::Duration now = clock_.Monotonic();
  const double piece = *throttle_.rate() * absl::ToDoubleSeconds(kPiece);
  bytes = std::min(bytes, static_cast<size_t>(std::max(piece, 1.0)));
  // In a row, so that waking up late costs no time; the piece waits for its end, so that all of
  // them together never take less than their time.
  earliest = throttle_.Reserve(bytes, std::max(earliest, now - kMostCatchUp));
  const absl::Status waited = WaitUntil(clock_, earliest, is_cancelled_);
  throttled_ += clock_.Monotonic() - now;
  return waited.ok() ? bytes : 0;
}

Sender::Answer Sender::SendOnce(HttpRequest& request) {
  request.cancelled = is_cancelled_;
  request.keep_response_bytes = kKeptAnswer;
  absl::Duration earliest = clock_.Monotonic();
  if (throttle_.rate()) {
    request.pace = [&](size_t bytes) { return Pace(bytes, earliest); };
  }
  const absl::StatusOr<HttpResponse> response = Client().Send(request);
  if (!response.ok()) {
    return {.status = response.status(), .retryable = IsRetryable(response.status())};
  }
  if (response->status < 400) return {};
  return {.status = absl::UnknownError(
              absl::StrCat("status ", response->status,
                           ShownBody(response->body, request, {options_.orchestrator_token}))),
          .retryable = IsRetryable(response->status),
          .retry_after = ParseRetryAfter(response->Header("retry-after"), clock_.Now())};
}

absl::Status Sender::Send(DeliveryAttempt::Kind kind, HttpRequest request, uint64_t bytes) {
  schedule_.Reset();
  std::optional<absl::Duration> failing_since;  // on the clock without the throttle's waits
  const std::string what = absl::StrCat(request.method, " ", ShownUrl(request.url));
  while (true) {
    const absl::Duration began = clock_.Monotonic();
    const Answer answer = SendOnce(request);
    const absl::Duration now = clock_.Monotonic() - throttled_;
    const absl::Duration failing = now - failing_since.value_or(now);
    std::optional<absl::Duration> pause;
    if (answer.retryable) pause = schedule_.Next(retried_ + failing, answer.retry_after);
    if (options_.on_attempt) {
      using Outcome = DeliveryAttempt::Outcome;
      options_.on_attempt({.kind = kind,
                           .outcome = answer.status.ok() ? Outcome::kDelivered
                                      : pause            ? Outcome::kRetried
                                                         : Outcome::kFailed,
                           .bytes = bytes,
                           .duration = clock_.Monotonic() - began});
    }
    if (answer.status.ok() || !pause) retried_ += failing;
    if (answer.status.ok()) return answer.status;
    if (!failing_since) failing_since = now;
    const absl::Status failure = Annotate(answer.status, what);
    if (!pause) return failure;
    LogWarning("{}; again in {}", Message(failure), absl::FormatDuration(*pause));
    RETURN_IF_ERROR(WaitUntil(clock_, clock_.Monotonic() + *pause, is_cancelled_));
  }
}

}  // namespace flowmesh::sidecar
