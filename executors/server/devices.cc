#include "executors/server/devices.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/strings.h"
#include "executors/launch/rank_plan.h"

namespace flowmesh::executor {
namespace {

const GpuInfo* GpuOf(const std::vector<GpuInfo>& gpus, const std::string& entry) {
  std::vector<std::string> uuids;
  for (const GpuInfo& gpu : gpus) uuids.push_back(gpu.uuid);
  const std::optional<size_t> place = FindGpu(entry, uuids);
  return place ? &gpus[*place] : nullptr;
}

}  // namespace

std::vector<GpuInfo> VisibleGpus(const std::vector<GpuInfo>& all,
                                 const std::optional<std::string>& visible_devices) {
  if (!visible_devices) return all;
  std::vector<GpuInfo> visible;
  for (const std::string& entry : SplitTrimmed(*visible_devices, ',')) {
    const GpuInfo* gpu = GpuOf(all, entry);
    if (gpu == nullptr) break;
    visible.push_back(*gpu);
  }
  return visible;
}

absl::StatusOr<std::vector<GpuInfo>> SelectGpus(const std::vector<GpuInfo>& visible,
                                                std::string_view devices) {
  const std::string word = ToLower(Trim(devices));
  if (word == "auto") return visible;
  std::vector<GpuInfo> selected;
  if (word == "cpu") return selected;
  for (const std::string& entry : SplitTrimmed(devices, ',')) {
    const GpuInfo* gpu = GpuOf(visible, entry);
    if (gpu == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("EXECUTOR_DEVICES: expected auto, cpu, or places and UUIDs among the ",
                       visible.size(), " visible GPUs, got \"", entry, "\""));
    }
    const bool twice = std::any_of(selected.begin(), selected.end(),
                                   [&](const GpuInfo& other) { return other.index == gpu->index; });
    if (twice) {
      return absl::InvalidArgumentError(
          absl::StrCat("EXECUTOR_DEVICES: expected each GPU once, got \"", entry, "\" again"));
    }
    selected.push_back(*gpu);
  }
  if (selected.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("EXECUTOR_DEVICES: expected auto, cpu, or places and UUIDs, got \"",
                     ToAbsl(devices), "\""));
  }
  return selected;
}

v1::DeviceGroup ToProto(const std::vector<GpuInfo>& gpus, const Nvml* nvml, int cpu_threads) {
  v1::DeviceGroup group;
  // Without GPUs it is as on a machine that has none.
  if (nvml != nullptr && !gpus.empty()) {
    group.set_driver_version(nvml->DriverVersion());
    group.set_cuda_version(nvml->CudaVersion());
  }
  for (const GpuInfo& gpu : gpus) {
    v1::Gpu& out = *group.add_gpus();
    out.set_index(gpu.index);
    out.set_name(gpu.name);
    out.set_uuid(gpu.uuid);
    if (gpu.memory_total_bytes) out.set_memory_total_bytes(*gpu.memory_total_bytes);
  }
  group.set_cpu_threads(cpu_threads);
  return group;
}

std::string VisibleDevicesOf(const v1::DeviceGroup& devices) {
  return absl::StrJoin(devices.gpus(), ",", [](std::string* out, const v1::Gpu& gpu) {
    absl::StrAppend(out, gpu.uuid());
  });
}

v1::Telemetry ReadTelemetry(const v1::DeviceGroup& devices, const Nvml* nvml) {
  v1::Telemetry telemetry;
  telemetry.mutable_time()->set_seconds(absl::ToUnixSeconds(absl::Now()));
  for (const v1::Gpu& gpu : devices.gpus()) {
    v1::GpuTelemetry& out = *telemetry.add_gpus();
    out.set_index(gpu.index());
    if (nvml == nullptr) continue;
    const GpuReading reading = nvml->Read(gpu.index());
    if (reading.power_watts) out.set_power_watts(*reading.power_watts);
    if (reading.utilization_pct) out.set_utilization_pct(*reading.utilization_pct);
    if (reading.memory_used_bytes) out.set_memory_used_bytes(*reading.memory_used_bytes);
    if (reading.memory_total_bytes) out.set_memory_total_bytes(*reading.memory_total_bytes);
    if (reading.temperature_celsius) out.set_temperature_celsius(*reading.temperature_celsius);
  }
  return telemetry;
}

}  // namespace flowmesh::executor
