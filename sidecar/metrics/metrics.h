// What the sidecar counts and shows to Prometheus. Names are API: dashboards and alerts use them.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace flowmesh::sidecar {

// A value of the moment somebody asks for the metrics.
struct Sample {
  std::string name, help;
  bool counter = false;  // else a gauge
  std::vector<std::pair<std::string, std::string>> labels;
  double value = 0;
};

// Thread-safe.
class SidecarMetrics {
 public:
  explicit SidecarMetrics(const std::string& version);

  // Messages of the task channel: `accepted`, `foreign`, `duplicate`, `queue_full`, or why it was
  // bad.
  void CountMessage(const std::string& outcome);
  // A task that ended: `succeeded`, `failed`, `given_back`, `not_wanted`. An unknown type counts as
  // `other`.
  void CountTask(const std::string& type, const std::string& outcome);
  // Why a task failed: a code of TaskFailed in lower case, `delivery`, or `refused` for one that
  // never ran.
  void CountFailure(const std::string& cause);
  // How long a task spent in a stage: `queued`, `running`, `delivering`, `announcing`.
  void ObserveStage(const char* stage, absl::Duration duration);
  // A try to send a `result` or an `upload`: `delivered`, `retried`, `failed`; `bytes` arrived.
  void CountDelivery(const std::string& kind, const std::string& outcome, uint64_t bytes,
                     absl::Duration duration);
  // An archive of a model or adapter: made and, where that was asked for, uploaded, or not.
  void CountArchive(bool ok);
  // A running task that was told to end; `answered`: its executor says that nothing of it is left.
  void ObserveCancel(bool answered, absl::Duration duration);
  void CountBeat(bool ok);
  void CountRegistration(const char* reason);  // `start`, `lost`, `hardware`

  // Everything as text: what was counted, and `samples`.
  std::string Text(const std::vector<Sample>& samples) const;

 private:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  // Counters that an alert looks at exist from the start: the first increase of one that appears
  // with it is seen by nobody.
  void StartAtZero();

  std::shared_ptr<prometheus::Registry> registry_;
  Counters &messages_, &tasks_, &failures_, &deliveries_, &sent_bytes_, &archives_, &cancels_,
      &beats_, &registrations_;
  Histograms &stages_, &delivery_seconds_;
  prometheus::Histogram& cancel_seconds_;
};

}  // namespace flowmesh::sidecar
