// The executor's metrics, in Prometheus' text form at /metrics when EXECUTOR_METRICS_LISTEN is set.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "common/endpoint.h"
#include "common/status.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::executor {

// Values that are read when somebody asks for the metrics.
struct MetricSources {
  std::function<bool()> busy;
  std::function<uint64_t()> ranks;
  std::function<uint64_t()> rank_starts;
  std::function<uint64_t()> rank_deaths;
  std::function<v1::Telemetry()> telemetry;
};

// Thread-safe.
class ExecutorMetrics {
 public:
  explicit ExecutorMetrics(const std::string& version);

  void CountTask(const std::string& type, const std::string& outcome, absl::Duration duration);

  // Starts to serve; `sources` must stay callable until StopServing. Unavailable: the address
  // cannot be bound.
  absl::Status Serve(const Endpoint& endpoint, MetricSources sources);
  // From when this returns, `sources` are no longer called.
  void StopServing() { exposer_.reset(); }

  // What is served, for tests.
  std::string Text(const MetricSources& sources) const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& tasks_;
  prometheus::Family<prometheus::Histogram>& durations_;
  std::shared_ptr<prometheus::Collectable> sampled_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace flowmesh::executor
