// Sends one thing over HTTP until it has arrived or has failed for good.
#pragma once

#include <functional>
#include <string>

#include "common/clock.h"
#include "common/http.h"
#include "common/retry.h"
#include "sidecar/delivery/deliverer.h"
#include "sidecar/delivery/throttle.h"

namespace flowmesh::sidecar {

// One task's sending: all of it shares the retry time of DELIVERY_TIMEOUT_SEC. Not thread-safe.
class Sender {
 public:
  Sender(const DelivererOptions& options, const Clock& clock, Throttle& throttle,
         std::function<bool()> is_cancelled);

  // Sends `request`, `bytes` of it, again and again as PROTOCOL.md 6.6 says. Any final status below
  // 400 is success. The text of a failure names method and URL and holds no header's value.
  absl::Status Send(DeliveryAttempt::Kind kind, HttpRequest request, uint64_t bytes);

 private:
  struct Answer {
    absl::Status status;
    bool retryable = false;
    std::optional<absl::Duration> retry_after;
  };

  Answer SendOnce(HttpRequest& request);
  // Waits until some of `bytes` may leave, and says how many; 0 when it was cancelled. `earliest`:
  // when the piece before them did.
  size_t Pace(size_t bytes, absl::Duration& earliest);

  const DelivererOptions& options_;
  const Clock& clock_;
  Throttle& throttle_;
  const std::function<bool()> is_cancelled_;
  absl::Duration throttled_;  // time spent waiting for the throttle
  absl::Duration retried_;    // from first failures to the ends of what was sent
  RetrySchedule schedule_;
};

}  // namespace flowmesh::sidecar
