// When a request that failed is tried again (PROTOCOL.md 6.6).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/status.h"

namespace flowmesh {

// Whether a status of HTTP, or a failure of the network, may go away by itself.
bool IsRetryable(int http_status);
bool IsRetryable(const absl::Status& status);

// The value of a Retry-After header: seconds, or an HTTP date; nothing for others.
std::optional<absl::Duration> ParseRetryAfter(std::string_view value, absl::Time now);

// From [0, 1), another in every process. Thread-safe.
double RandomFraction();

// The pauses between tries: exponential from 0.5 s to 30 s with full jitter, for at most `limit` in
// all. Pure arithmetic on times that are passed in. Not thread-safe.
class RetrySchedule {
 public:
  // `random` draws from [0, 1).
  explicit RetrySchedule(absl::Duration limit, std::function<double()> random = RandomFraction)
      : limit_(limit), random_(std::move(random)) {}

  // How long to wait before the next try; nothing when the limit would be passed. `spent`: time
  // that counts against it so far. A Retry-After is the least pause.
  std::optional<absl::Duration> Next(absl::Duration spent,
                                     std::optional<absl::Duration> retry_after);
  // Something got through: the next failures start from the first pause again.
  void Reset() { failures_ = 0; }

 private:
  const absl::Duration limit_;
  const std::function<double()> random_;
  int failures_ = 0;
};

// The tries of one request, which may be made again until it succeeds or its time is up, with a
// word to whoever waits before each pause. Not thread-safe.
class Retries {
 public:
  // Gets `GET http://host/file: status 503; try 3 in 4.2 s`.
  using OnRetry = std::function<void(const std::string& text)>;

  // `what` is asked for. `limit`: of tries that bring nothing new. Null `on_retry`: the log.
  Retries(std::string what, absl::Duration limit, const Clock& clock, OnRetry on_retry);

  // Something new came: tries count from now on.
  void Progressed();

  // After a failure that may pass: waits until the next try is due. Otherwise returns `failure`:
  // the limit would be passed, or another, shorter one of failures that hardly pass (IsLasting).
  // Cancelled; `is_cancelled` as in WaitUntil.
  absl::Status WaitAfter(const absl::Status& failure, std::optional<absl::Duration> retry_after,
                         const std::function<bool()>& is_cancelled);

 private:
  const std::string what_;
  const Clock& clock_;
  const OnRetry on_retry_;
  RetrySchedule schedule_;
  int tries_ = 1;
  absl::Duration progressed_;                    // when
  std::optional<absl::Duration> lasting_since_;  // of the failures in a row that hardly pass
};

// Sends a request until its answer or failure is none that may go away by itself, for at most
// `limit`, pauses included, and until `deadline` on the clock's monotonic scale. The outcome of the
// last try; Cancelled. `on_retry` as in Retries.
absl::StatusOr<HttpResponse> SendWithRetries(HttpClient& client, HttpRequest request,
                                             absl::Duration limit, const Clock& clock,
                                             absl::Duration deadline = absl::InfiniteDuration(),
                                             Retries::OnRetry on_retry = nullptr);

// Waits until `time` on the clock's monotonic scale. Cancelled as soon as `is_cancelled`, which is
// polled from this thread and may be null.
absl::Status WaitUntil(const Clock& clock, absl::Duration time,
                       const std::function<bool()>& is_cancelled);

}  // namespace flowmesh
