#include "common/retry.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/synchronization/mutex.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(500);
constexpr absl::Duration kLongestPause = absl::Seconds(30);
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

absl::StatusOr<HttpResponse> SendWithRetries(HttpClient& client, HttpRequest request,
                                             absl::Duration limit, const Clock& clock,
                                             absl::Duration deadline) {
  const absl::Duration begin = clock.Monotonic(), total = request.total_timeout;
  RetrySchedule schedule(std::min(limit, deadline - begin));
  while (true) {
    request.total_timeout = std::min(total, deadline - clock.Monotonic());
    absl::StatusOr<HttpResponse> response = client.Send(request);
    const bool may_pass =
        response.ok() ? IsRetryable(response->status) : IsRetryable(response.status());
    if (!may_pass) return response;
    const auto retry_after = response.ok()
                                 ? ParseRetryAfter(response->Header("retry-after"), clock.Now())
                                 : std::nullopt;
    const auto pause = schedule.Next(clock.Monotonic() - begin, retry_after);
    if (!pause) return response;
    RETURN_IF_ERROR(WaitUntil(clock, clock.Monotonic() + *pause, request.cancelled));
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
