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
  // A task that ended: `succeeded`, `failed`, `given_back`. An unknown type counts as `other`.
  void CountTask(const std::string& type, const std::string& outcome);
  // How long a task spent in a stage: `queued`, `running`, `delivering`, `announcing`.
  void ObserveStage(const char* stage, absl::Duration duration);
  // A try to send a `result` or an `upload`: `delivered`, `retried`, `failed`.
  void CountDelivery(const std::string& kind, const std::string& outcome, uint64_t bytes);
  void CountBeat(bool ok);
  void CountRegistration(const char* reason);  // `start`, `lost`, `hardware`

  // Everything as text: what was counted, and `samples`.
  std::string Text(const std::vector<Sample>& samples) const;

 private:
  using Counters = prometheus::Family<prometheus::Counter>;

  std::shared_ptr<prometheus::Registry> registry_;
  Counters &messages_, &tasks_, &deliveries_, &beats_, &registrations_;
  prometheus::Counter& sent_bytes_;
  prometheus::Family<prometheus::Histogram>& stages_;
};

}  // namespace flowmesh::sidecar
