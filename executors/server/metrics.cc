#include "executors/server/metrics.h"

#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

// A metric family made from values of this moment.
prometheus::MetricFamily Sampled(const char* name, const char* help, prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  return family;
}

void Add(prometheus::MetricFamily& family, double value, const std::string& gpu = "") {
  prometheus::ClientMetric metric;
  if (!gpu.empty()) metric.label = {{"gpu", gpu}};
  if (family.type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

class SampledMetrics : public prometheus::Collectable {
 public:
  explicit SampledMetrics(MetricSources sources) : sources_(std::move(sources)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    using prometheus::MetricType;
    auto busy = Sampled("flowmesh_executor_busy", "1 while a task runs", MetricType::Gauge);
    auto ranks = Sampled("flowmesh_executor_ranks", "Rank processes that live", MetricType::Gauge);
    auto starts =
        Sampled("flowmesh_executor_rank_starts_total", "Rank groups started", MetricType::Counter);
    auto deaths = Sampled("flowmesh_executor_rank_deaths_total",
                          "Ranks that ended without having been told to", MetricType::Counter);
    auto resident = Sampled("flowmesh_executor_rank_resident_bytes", "Resident memory of all ranks",
                            MetricType::Gauge);
    auto power = Sampled("flowmesh_executor_gpu_power_watts", "Power draw", MetricType::Gauge);
    auto load =
        Sampled("flowmesh_executor_gpu_utilization_percent", "Utilisation", MetricType::Gauge);
    auto memory =
        Sampled("flowmesh_executor_gpu_memory_used_bytes", "GPU memory in use", MetricType::Gauge);
    auto heat =
        Sampled("flowmesh_executor_gpu_temperature_celsius", "Temperature", MetricType::Gauge);
    Add(busy, sources_.busy() ? 1 : 0);
    Add(ranks, static_cast<double>(sources_.ranks()));
    Add(starts, static_cast<double>(sources_.rank_starts()));
    Add(deaths, static_cast<double>(sources_.rank_deaths()));
    const v1::Telemetry telemetry = sources_.telemetry();
    Add(resident, static_cast<double>(telemetry.rank_resident_bytes()));
    for (const v1::GpuTelemetry& gpu : telemetry.gpus()) {
      const std::string index = absl::StrCat(gpu.index());
      if (gpu.has_power_watts()) Add(power, gpu.power_watts(), index);
      if (gpu.has_utilization_pct()) Add(load, gpu.utilization_pct(), index);
      if (gpu.has_memory_used_bytes()) {
        Add(memory, static_cast<double>(gpu.memory_used_bytes()), index);
      }
      if (gpu.has_temperature_celsius()) Add(heat, gpu.temperature_celsius(), index);
    }
    return {busy, ranks, starts, deaths, resident, power, load, memory, heat};
  }

 private:
  const MetricSources sources_;
};

}  // namespace

ExecutorMetrics::ExecutorMetrics(const std::string& version)
    : registry_(std::make_shared<prometheus::Registry>()),
      tasks_(prometheus::BuildCounter()
                 .Name("flowmesh_executor_tasks_total")
                 .Help("Tasks that ended, by type and outcome")
                 .Register(*registry_)),
      durations_(prometheus::BuildHistogram()
                     .Name("flowmesh_executor_task_seconds")
                     .Help("Time from acceptance to the end of a task, by type")
                     .Register(*registry_)) {
  prometheus::BuildGauge()
      .Name("flowmesh_executor_info")
      .Help("Always 1; the version is a label")
      .Register(*registry_)
      .Add({{"version", version}})
      .Set(1);
}

void ExecutorMetrics::CountTask(const std::string& type, const std::string& outcome,
                                absl::Duration duration) {
  static const prometheus::Histogram::BucketBoundaries kBounds = {0.001, 0.01, 0.1,  1,   10,
                                                                  60,    300,  1800, 7200};
  tasks_.Add({{"type", type}, {"outcome", outcome}}).Increment();
  durations_.Add({{"type", type}}, kBounds).Observe(absl::ToDoubleSeconds(duration));
}

absl::Status ExecutorMetrics::Serve(const Endpoint& endpoint, MetricSources sources) {
  constexpr size_t kThreads = 2;
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(endpoint.Target(), kThreads);
  } catch (const std::exception& e) {
    return absl::UnavailableError(
        absl::StrCat("EXECUTOR_METRICS_LISTEN: cannot listen on ", endpoint.Target()));
  }
  sampled_ = std::make_shared<SampledMetrics>(std::move(sources));
  exposer_->RegisterCollectable(registry_);
  exposer_->RegisterCollectable(sampled_);
  return absl::OkStatus();
}

std::string ExecutorMetrics::Text(const MetricSources& sources) const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (prometheus::MetricFamily& family : SampledMetrics(sources).Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace flowmesh::executor
