#include "common/retry.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/http.h"
#include "common/log.h"
#include "common/redact.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(500);
constexpr absl::Duration kLongestPause = absl::Seconds(30);
// A name server or a certificate that is put right meanwhile; a name that is wrong stays wrong.
constexpr absl::Duration kLastingLimit = absl::Seconds(20);
constexpr absl::Duration kLookAround = absl::Milliseconds(50);

}  // namespace

bool IsRetryable(int http_status) {
  return http_status == 408 || http_status == 425 || http_status == 429 || http_status >= 500;
}

bool IsRetryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now) {
  const std::string text(Trim(value));
  int64_t seconds = 0;
  if (absl::SimpleAtoi(text, &seconds)) {
    return seconds >= 0 ? std::optional<absl::Duration>(absl::Seconds(seconds)) : std::nullopt;
  }
  absl::Time time;
  std::string error;
  if (!absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", text, &time, &error)) return std::nullopt;
  return std::max(time - now, absl::ZeroDuration());
}

double RandomFraction() {
  thread_local absl::BitGen random;
  return absl::Uniform<double>(random, 0, 1);
}

std::optional<absl::Duration> RetrySchedule::Next(absl::Duration spent,
                                                  std::optional<absl::Duration> retry_after) {
  const absl::Duration ceiling =
      std::min(kFirstPause * std::exp2(std::min(failures_, 10)), kLongestPause);
  ++failures_;
  const absl::Duration pause =
      std::max(ceiling * random_(), retry_after.value_or(absl::ZeroDuration()));
  if (spent + pause >= limit_) return std::nullopt;
  return pause;
}

Retries::Retries(std::string what, absl::Duration limit, const Clock& clock, OnRetry on_retry)
    : what_(std::move(what)),
      clock_(clock),
      on_retry_(std::move(on_retry)),
      schedule_(limit),
      progressed_(clock.Monotonic()) {}

void Retries::Progressed() {
  progressed_ = clock_.Monotonic();
  schedule_.Reset();
}

absl::Status Retries::WaitAfter(const absl::Status& failure,
                                std::optional<absl::Duration> retry_after,
                                const std::function<bool()>& is_cancelled) {
  const absl::Duration now = clock_.Monotonic();
  if (!IsLasting(failure)) {
    lasting_since_.reset();
  } else if (!lasting_since_) {
    lasting_since_ = now;
    schedule_.Reset();
  }
  const std::optional<absl::Duration> pause = schedule_.Next(now - progressed_, retry_after);
  if (!pause || (lasting_since_ && now + *pause - *lasting_since_ >= kLastingLimit)) return failure;
  const std::string text = absl::StrFormat("%s: %s; try %d in %.1f s", what_, Message(failure),
                                           ++tries_, absl::ToDoubleSeconds(*pause));
  if (on_retry_) {
    on_retry_(text);
  } else {
    LogWarning("{}", text);
  }
  return WaitUntil(clock_, now + *pause, is_cancelled);
}

absl::StatusOr<HttpResponse> SendWithRetries(HttpClient& client, HttpRequest request,
                                             absl::Duration limit, const Clock& clock,
                                             absl::Duration deadline, Retries::OnRetry on_retry) {
  const absl::Duration total = request.total_timeout;
  Retries retries(absl::StrCat(request.method, " ", ShownUrl(request.url)),
                  std::min(limit, deadline - clock.Monotonic()), clock, std::move(on_retry));
  while (true) {
    request.total_timeout = std::min(total, deadline - clock.Monotonic());
    absl::StatusOr<HttpResponse> response = client.Send(request);
    const absl::Status failure =
        response.ok() ? absl::UnavailableError(absl::StrCat("status ", response->status))
                      : response.status();
    const bool may_pass = response.ok() ? IsRetryable(response->status) : IsRetryable(failure);
    if (!may_pass) return response;
    const auto retry_after = response.ok()
                                 ? ParseRetryAfter(response->Header("retry-after"), clock.Now())
                                 : std::nullopt;
    const absl::Status waited = retries.WaitAfter(failure, retry_after, request.cancelled);
    if (absl::IsCancelled(waited)) return waited;
    if (!waited.ok()) return response;
  }
}

absl::Status WaitUntil(const Clock& clock, absl::Duration time,
                       const std::function<bool()>& is_cancelled) {
  absl::Mutex mutex;
  bool never = false;
  absl::MutexLock lock(&mutex);
  while (true) {
    if (is_cancelled && is_cancelled()) return absl::CancelledError("cancelled");
    const absl::Duration left = time - clock.Monotonic();
    if (left <= absl::ZeroDuration()) return absl::OkStatus();
    clock.Await(mutex, absl::Condition(&never), std::min(left, kLookAround));
  }
}

}  // namespace flowmesh
