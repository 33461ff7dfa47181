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

// Buckets, in seconds: from a fast disk's write to a day of training.
const prometheus::Histogram::BucketBoundaries kStageBounds = {
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600, 7200, 86400};
const prometheus::Histogram::BucketBoundaries kSendBounds = {0.001, 0.005, 0.02, 0.1, 0.5,
                                                             2,     10,    60,   600, 3600};
const prometheus::Histogram::BucketBoundaries kCancelBounds = {0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30};

prometheus::Family<prometheus::Counter>& MakeCounter(prometheus::Registry& registry,
                                                     const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

prometheus::Family<prometheus::Histogram>& MakeHistogram(prometheus::Registry& registry,
                                                         const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
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
      failures_(
          MakeCounter(*registry_, "flowmesh_task_failures_total", "Tasks that failed, by cause")),
      deliveries_(MakeCounter(*registry_, "flowmesh_delivery_attempts_total",
                              "Tries to send a result or a file, by outcome")),
      sent_bytes_(MakeCounter(*registry_, "flowmesh_delivery_sent_bytes_total",
                              "Bytes of results and files that arrived")),
      archives_(MakeCounter(*registry_, "flowmesh_archives_total",
                            "Archives of models and adapters, by outcome")),
      cancels_(MakeCounter(*registry_, "flowmesh_cancels_total",
                           "Running tasks that were told to end, by outcome")),
      beats_(MakeCounter(*registry_, "flowmesh_heartbeats_total", "Heartbeats, by outcome")),
      registrations_(MakeCounter(*registry_, "flowmesh_registrations_total",
                                 "Registrations in Redis, by reason")),
      stages_(MakeHistogram(*registry_, "flowmesh_task_stage_seconds",
                            "Time that a task spent in a stage")),
      delivery_seconds_(MakeHistogram(*registry_, "flowmesh_delivery_attempt_seconds",
                                      "Time that a try to send took")),
      cancel_seconds_(MakeHistogram(*registry_, "flowmesh_cancel_seconds",
                                    "Time until nothing was left of a task that was told to end")
                          .Add({}, kCancelBounds)) {
  prometheus::BuildGauge()
      .Name("flowmesh_sidecar_info")
      .Help("Always 1; the version is a label")
      .Register(*registry_)
      .Add({{"version", version}})
      .Set(1);
  StartAtZero();
}

void SidecarMetrics::StartAtZero() {
  for (const char* outcome :
       {"accepted", "foreign", "duplicate", "queue_full", "quarantined", "draining", "not_json",
        "not_utf8", "not_a_map", "no_task_id", "too_large"}) {
    messages_.Add({{"outcome", outcome}});
  }
  for (const char* cause : {"invalid_spec", "task_error", "rank_died", "cancelled", "hung",
                            "quarantined", "internal", "delivery", "refused"}) {
    failures_.Add({{"cause", cause}});
  }
  for (const char* kind : {"result", "upload"}) {
    for (const char* outcome : {"delivered", "retried", "failed"}) {
      deliveries_.Add({{"kind", kind}, {"outcome", outcome}});
    }
    sent_bytes_.Add({{"kind", kind}});
  }
  for (const char* outcome : {"ok", "failed"}) {
    archives_.Add({{"outcome", outcome}});
    beats_.Add({{"outcome", outcome}});
  }
  for (const char* outcome : {"ended", "unanswered"}) cancels_.Add({{"outcome", outcome}});
  for (const char* reason : {"start", "lost", "hardware"}) {
    registrations_.Add({{"reason", reason}});
  }
}

void SidecarMetrics::CountMessage(const std::string& outcome) {
  messages_.Add({{"outcome", outcome}}).Increment();
}

void SidecarMetrics::CountTask(const std::string& type, const std::string& outcome) {
  const bool known = std::find(kTaskTypes.begin(), kTaskTypes.end(), type) != kTaskTypes.end();
  tasks_.Add({{"type", known ? type : "other"}, {"outcome", outcome}}).Increment();
}

void SidecarMetrics::CountFailure(const std::string& cause) {
  failures_.Add({{"cause", cause}}).Increment();
}

void SidecarMetrics::ObserveStage(const char* stage, absl::Duration duration) {
  stages_.Add({{"stage", stage}}, kStageBounds).Observe(absl::ToDoubleSeconds(duration));
}

void SidecarMetrics::CountDelivery(const std::string& kind, const std::string& outcome,
                                   uint64_t bytes, absl::Duration duration) {
  deliveries_.Add({{"kind", kind}, {"outcome", outcome}}).Increment();
  sent_bytes_.Add({{"kind", kind}}).Increment(static_cast<double>(bytes));
  delivery_seconds_.Add({{"kind", kind}}, kSendBounds).Observe(absl::ToDoubleSeconds(duration));
}

void SidecarMetrics::CountArchive(bool ok) {
  archives_.Add({{"outcome", ok ? "ok" : "failed"}}).Increment();
}

void SidecarMetrics::ObserveCancel(bool answered, absl::Duration duration) {
  cancels_.Add({{"outcome", answered ? "ended" : "unanswered"}}).Increment();
  cancel_seconds_.Observe(absl::ToDoubleSeconds(duration));
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
