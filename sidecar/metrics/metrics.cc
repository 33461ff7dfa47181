#include "sidecar/metrics/metrics.h"

#include <prometheus/gauge.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace flowmesh::sidecar {
namespace {

// Label values come from tasks, so that only these are shown: anybody could invent others.
constexpr std::array<std::string_view, 8> kTaskTypes = {"agent",    "dpo", "echo", "inference",
                                                        "lora_sft", "ppo", "rag",  "sft"};

prometheus::Family<prometheus::Counter>& MakeCounter(prometheus::Registry& registry,
                                                     const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

void AddSample(const Sample& sample, std::vector<prometheus::MetricFamily>& families) {
  auto family = std::find_if(families.begin(), families.end(),
                             [&](const auto& known) { return known.name == sample.name; });
  if (family == families.end()) {
    prometheus::MetricFamily added;
    added.name = sample.name;
    added.help = sample.help;
    added.type = sample.counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
    family = families.insert(families.end(), std::move(added));
  }
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
  (sample.counter ? metric.counter.value : metric.gauge.value) = sample.value;
  family->metric.push_back(std::move(metric));
}

}  // namespace

SidecarMetrics::SidecarMetrics(const std::string& version)
    : registry_(std::make_shared<prometheus::Registry>()),
      messages_(MakeCounter(*registry_, "flowmesh_messages_total",
                            "Messages of the task channel, by outcome")),
      tasks_(
          MakeCounter(*registry_, "flowmesh_tasks_total", "Tasks that ended, by type and outcome")),
      deliveries_(MakeCounter(*registry_, "flowmesh_delivery_attempts_total",
                              "Tries to send a result or a file, by outcome")),
      beats_(MakeCounter(*registry_, "flowmesh_heartbeats_total", "Heartbeats, by outcome")),
      registrations_(MakeCounter(*registry_, "flowmesh_registrations_total",
                                 "Registrations in Redis, by reason")),
      sent_bytes_(MakeCounter(*registry_, "flowmesh_delivery_sent_bytes_total",
                              "Bytes of results and files sent")
                      .Add({})),
      stages_(prometheus::BuildHistogram()
                  .Name("flowmesh_task_stage_seconds")
                  .Help("Time that a task spent in a stage")
                  .Register(*registry_)) {
  prometheus::BuildGauge()
      .Name("flowmesh_sidecar_info")
      .Help("Always 1; the version is a label")
      .Register(*registry_)
      .Add({{"version", version}})
      .Set(1);
}

void SidecarMetrics::CountMessage(const std::string& outcome) {
  messages_.Add({{"outcome", outcome}}).Increment();
}

void SidecarMetrics::CountTask(const std::string& type, const std::string& outcome) {
  const bool known = std::find(kTaskTypes.begin(), kTaskTypes.end(), type) != kTaskTypes.end();
  tasks_.Add({{"type", known ? type : "other"}, {"outcome", outcome}}).Increment();
}

void SidecarMetrics::ObserveStage(const char* stage, absl::Duration duration) {
  static const prometheus::Histogram::BucketBoundaries kBounds = {
      0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 7200};
  stages_.Add({{"stage", stage}}, kBounds).Observe(absl::ToDoubleSeconds(duration));
}

void SidecarMetrics::CountDelivery(const std::string& kind, const std::string& outcome,
                                   uint64_t bytes) {
  deliveries_.Add({{"kind", kind}, {"outcome", outcome}}).Increment();
  sent_bytes_.Increment(static_cast<double>(bytes));
}

void SidecarMetrics::CountBeat(bool ok) {
  beats_.Add({{"outcome", ok ? "ok" : "failed"}}).Increment();
}

void SidecarMetrics::CountRegistration(const char* reason) {
  registrations_.Add({{"reason", reason}}).Increment();
}

std::string SidecarMetrics::Text(const std::vector<Sample>& samples) const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (const Sample& sample : samples) AddSample(sample, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace flowmesh::sidecar
