#include "sidecar/delivery/sender.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

constexpr absl::Duration kLookAround = absl::Milliseconds(50);
constexpr size_t kShownAnswer = 200;   // bytes of an error's body
constexpr size_t kShortestSecret = 4;  // anything shorter would blank out ordinary text

// One per delivering thread: it keeps its connections.
HttpClient& Client() {
  static thread_local HttpClient client;
  return client;
}

// Where `user:password` of a URL stands: the offset of its first byte, and its length without the
// `@`; the length is npos when there is none.
std::pair<size_t, size_t> UserInfo(const std::string& url) {
  const size_t scheme = url.find("://");
  const size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const size_t at = url.substr(0, end).rfind('@');
  return {begin, at == std::string::npos || at < begin ? std::string::npos : at - begin};
}

// Without a password and without a query, which may hold a token.
std::string ShownUrl(const std::string& url) {
  return WithoutUserInfo(url.substr(0, url.find_first_of("?#")));
}

}  // namespace

std::string WithoutUserInfo(std::string url) {
  const auto [begin, length] = UserInfo(url);
  if (length != std::string::npos) url.erase(begin, length + 1);
  return url;
}

Sender::Sender(const DelivererOptions& options, const Clock& clock, Throttle& throttle,
               std::function<bool()> is_cancelled)
    : options_(options),
      clock_(clock),
      throttle_(throttle),
      is_cancelled_(std::move(is_cancelled)),
      begun_(clock.Monotonic()),
      schedule_(options.delivery_timeout, [this] { return absl::Uniform<double>(random_, 0, 1); }) {
}

absl::Status Sender::WaitUntil(absl::Duration time) {
  absl::Mutex mutex;
  bool never = false;
  absl::MutexLock lock(&mutex);
  while (true) {
    if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
    const absl::Duration left = time - clock_.Monotonic();
    if (left <= absl::ZeroDuration()) return absl::OkStatus();
    clock_.Await(mutex, absl::Condition(&never), std::min(left, kLookAround));
  }
}

std::string Sender::WithoutSecrets(std::string text, const HttpRequest& request) const {
  std::vector<std::string> secrets = {options_.orchestrator_token};
  for (const auto& [name, value] : request.headers) {
    secrets.push_back(value);
    secrets.emplace_back(value.substr(value.find(' ') + 1));  // `Bearer <token>`
  }
  if (const auto [begin, length] = UserInfo(request.url); length != std::string::npos) {
    const std::string user_info = request.url.substr(begin, length);
    secrets.emplace_back(user_info.substr(user_info.find(':') + 1));
  }
  for (const std::string& secret : secrets) {
    if (secret.size() >= kShortestSecret) text = absl::StrReplaceAll(text, {{secret, "***"}});
  }
  return text;
}

Sender::Answer Sender::SendOnce(DeliveryAttempt::Kind kind, HttpRequest& request, uint64_t bytes) {
  // A result waits its time first; a file is paced on its way, so that a reader sees it move.
  const Throttle::Slot slot = throttle_.Reserve(bytes, clock_.Monotonic());
  const absl::Duration before = clock_.Monotonic();
  const bool paced = kind == DeliveryAttempt::Kind::kUpload;
  if (const absl::Status waited = WaitUntil(paced ? slot.begin : slot.end); !waited.ok()) {
    return {.status = waited};
  }
  throttled_ += clock_.Monotonic() - before;
  request.max_send_bytes_per_second = paced ? throttle_.rate().value_or(0) : 0;
  request.cancelled = is_cancelled_;
  const absl::StatusOr<HttpResponse> response = Client().Send(request);
  if (!response.ok()) {
    return {.status = response.status(), .retryable = IsRetryable(response.status())};
  }
  if (response->status < 400) {
    const absl::Duration sent = clock_.Monotonic();
    if (const absl::Status waited = WaitUntil(slot.end); !waited.ok()) return {.status = waited};
    throttled_ += clock_.Monotonic() - sent;
    return {};
  }
  // Cut after the secrets are out: a cut through one would leave its first half.
  const std::string body = WithoutSecrets(response->body, request).substr(0, kShownAnswer);
  return {.status = absl::UnknownError(absl::StrCat("status ", response->status,
                                                    IsValidUtf8(body) && !body.empty() ? ": " : "",
                                                    IsValidUtf8(body) ? body : "")),
          .retryable = IsRetryable(response->status),
          .retry_after = ParseRetryAfter(response->Header("retry-after"), clock_.Now())};
}

absl::Status Sender::Send(DeliveryAttempt::Kind kind, HttpRequest request, uint64_t bytes) {
  schedule_.Reset();
  const std::string what = absl::StrCat(request.method, " ", ShownUrl(request.url));
  while (true) {
    const absl::Duration began = clock_.Monotonic();
    const Answer answer = SendOnce(kind, request, bytes);
    std::optional<absl::Duration> pause;
    if (answer.retryable) {
      pause = schedule_.Next(clock_.Monotonic() - begun_ - throttled_, answer.retry_after);
    }
    if (options_.on_attempt) {
      using Outcome = DeliveryAttempt::Outcome;
      options_.on_attempt({.kind = kind,
                           .outcome = answer.status.ok() ? Outcome::kDelivered
                                      : pause            ? Outcome::kRetried
                                                         : Outcome::kFailed,
                           .bytes = bytes,
                           .duration = clock_.Monotonic() - began});
    }
    if (answer.status.ok()) return answer.status;
    const absl::Status failure = Annotate(answer.status, what);
    if (!pause) return failure;
    LogWarning("{}; again in {}", Message(failure), absl::FormatDuration(*pause));
    RETURN_IF_ERROR(WaitUntil(clock_.Monotonic() + *pause));
  }
}

}  // namespace flowmesh::sidecar
