// From an executor's result to the point where the terminal event may be published (PROTOCOL.md
// sections 6 and 8): files in the task's directory, uploads, result POSTs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/status.h"
#include "sidecar/archive/archiver.h"
#include "sidecar/delivery/delivery_job.h"

namespace flowmesh::sidecar {

// One try to send something over HTTP.
struct DeliveryAttempt {
  enum class Kind { kResult, kUpload };
  enum class Outcome { kDelivered, kRetried, kFailed };
  Kind kind;
  Outcome outcome;     // kRetried: it failed and is tried again
  uint64_t bytes = 0;  // of the body or file; those that left when it failed are not known
  absl::Duration duration;
};

struct DelivererOptions {
  std::string orchestrator_base_url;  // without a trailing slash; empty: unknown
  std::string orchestrator_token;     // secret; sent to the origin of the base URL only
  absl::Duration delivery_timeout = absl::Seconds(300);  // of retries, per task
  std::optional<double> bandwidth;                       // bytes per second, all sending together
  ArchiveOptions archive;                                // of models and adapters
  bool cleanup_after_upload = false;                     // MODEL_CLEANUP_AFTER_UPLOAD
  // Both from the delivering thread; may be null.
  std::function<void(const DeliveryAttempt&)> on_attempt;
  std::function<void(bool ok)> on_archive;  // a model or adapter: archived and, if asked for, sent
};

// Thread-safe: each call works on its own job; all of them share the bandwidth.
class Deliverer {
 public:
  Deliverer(DelivererOptions options, const Clock& clock);
  ~Deliverer();

  // Archives models and uploads what the executor asked for, puts the links into `job.result`,
  // writes `responses.json` and the manifest of the task and of its children and posts the results:
  // the task's first, then the children's in their order; then cleans up, where that is wanted.
  // Blocks until all of it is done or has failed for good; the task succeeds if and only if this
  // returns OK. An archive that cannot be made or uploaded is a warning in the result. The text
  // names the child that failed, and holds no secret.
  //
  // Sends are at-least-once: a job may be delivered again from the start.
  //
  // `is_cancelled` is polled from this thread and ends waits and transfers with Cancelled.
  absl::Status Deliver(DeliveryJob& job, const std::function<bool()>& is_cancelled);

  // For a task that failed: `responses.json` when the executor left a failure record (null: none),
  // and the manifests. Nothing is sent.
  absl::Status WriteFailure(const DeliveryJob& job, const Json& record);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether the files of a result are where it says, or were uploaded and then removed by CleanUp.
bool OutputsAreKept(const DeliveryJob& job, const v1::TaskFinished& finished);

}  // namespace flowmesh::sidecar
