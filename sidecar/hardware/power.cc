#include "sidecar/hardware/power.h"

#include <cmath>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

std::optional<uint64_t> ReadCounter(const fs::path& file) {
  const absl::StatusOr<std::string> text = ReadFile(file, 64);
  uint64_t value = 0;
  if (!text.ok() || !absl::SimpleAtoi(ToAbsl(Trim(*text)), &value)) return std::nullopt;
  return value;
}

Json NumberOrNull(std::optional<double> value) { return value ? Json(*value) : Json(); }

std::optional<double> KilowattHours(std::optional<double> watts, absl::Duration uptime) {
  if (!watts) return std::nullopt;
  return *watts * absl::ToDoubleHours(uptime) / 1000;
}

}  // namespace

std::optional<uint64_t> ReadCpuEnergy(const fs::path& root) {
  for (const char* name : {"intel-rapl:0", "amd-rapl:0"}) {
    if (const auto energy = ReadCounter(root / name / "energy_uj")) return energy;
  }
  std::set<fs::path> zones;  // in the order of their names
  std::error_code error;
  for (const fs::directory_entry& zone : fs::directory_iterator(root, error)) {
    zones.insert(zone.path());
  }
  for (const fs::path& zone : zones) {
    if (const auto energy = ReadCounter(zone / "energy_uj")) return energy;
  }
  return std::nullopt;
}

// The difference of two readings over time; nothing for the first one, and after a wrap.
std::optional<double> PowerMeter::CpuWatts(absl::Duration at, std::optional<uint64_t> microjoules) {
  const std::optional<uint64_t> before = last_energy_;
  const double seconds = absl::ToDoubleSeconds(at - last_at_);
  last_energy_ = microjoules;
  last_at_ = at;
  if (!before || !microjoules || *microjoules < *before || seconds <= 0) return std::nullopt;
  return static_cast<double>(*microjoules - *before) / 1e6 / seconds;
}

void PowerMeter::Add(absl::Duration at, absl::Time wall, std::optional<uint64_t> cpu_microjoules,
                     const v1::Telemetry& gpus) {
  const std::optional<double> cpu = CpuWatts(at, cpu_microjoules);
  if (cpu) cpu_.Add(*cpu);
  Json per_gpu = Json::array();
  std::optional<double> total;
  for (const v1::GpuTelemetry& gpu : gpus.gpus()) {
    const bool known = gpu.has_power_watts() && std::isfinite(gpu.power_watts());
    if (known) {
      total = total.value_or(0) + gpu.power_watts();
      per_gpu_[gpu.index()].Add(gpu.power_watts());
    }
    per_gpu.push_back(
        {{"index", gpu.index()}, {"power_w", known ? Json(gpu.power_watts()) : Json()}});
  }
  if (total) gpu_.Add(*total);
  latest_ = {{"timestamp", FormatTimestamp(wall)},
             {"cpu_watts", NumberOrNull(cpu)},
             {"gpu_watts", {{"total", NumberOrNull(total)}, {"per_gpu", std::move(per_gpu)}}}};
}

Json PowerMeter::Summary(absl::Duration uptime) const {
  Json per_gpu = Json::object();
  for (const auto& [index, mean] : per_gpu_) per_gpu[absl::StrCat(index)] = *mean.value();
  const std::optional<double> cpu = KilowattHours(cpu_.value(), uptime);
  const std::optional<double> gpu = KilowattHours(gpu_.value(), uptime);
  std::optional<double> total;
  if (cpu || gpu) total = cpu.value_or(0) + gpu.value_or(0);
  return {{"uptime_sec", absl::ToDoubleSeconds(uptime)},
          {"avg_cpu_watts", NumberOrNull(cpu_.value())},
          {"avg_gpu_watts", NumberOrNull(gpu_.value())},
          {"per_gpu_avg_watts", std::move(per_gpu)},
          {"estimated_energy_kwh", NumberOrNull(total)},
          {"estimated_energy_breakdown",
           {{"cpu_kwh", NumberOrNull(cpu)}, {"gpu_kwh", NumberOrNull(gpu)}}},
          {"samples", {{"cpu", cpu_.count}, {"gpu", gpu_.count}}}};
}

}  // namespace flowmesh::sidecar
