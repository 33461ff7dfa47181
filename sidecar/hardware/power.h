// Power and energy in heartbeats (PROTOCOL.md section 3). Reading a sensor and adding up samples
// are apart: a slow sensor delays nobody who only wants the sums.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>

#include "absl/time/time.h"
#include "common/json.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::sidecar {

// The RAPL counter of the processor in microjoules: intel-rapl:0, else amd-rapl:0, else the first
// counter below `root`; nothing when there is none or it cannot be read.
std::optional<uint64_t> ReadCpuEnergy(const std::filesystem::path& root = "/sys/class/powercap");

// Adds up one worker's samples. Not thread-safe.
class PowerMeter {
 public:
  // `at`: monotonic. `gpus`: power per GPU of the worker's executor, as telemetry gives it.
  void Add(absl::Duration at, absl::Time wall, std::optional<uint64_t> cpu_microjoules,
           const v1::Telemetry& gpus);

  // The latest sample: `power` of a heartbeat, `power_metrics` of REGISTER. Null before the first.
  const Json& latest() const { return latest_; }
  // `power_summary`.
  Json Summary(absl::Duration uptime) const;

 private:
  struct Mean {
    double sum = 0;
    int count = 0;

    void Add(double value) {
      sum += value;
      ++count;
    }
    std::optional<double> value() const {
      return count == 0 ? std::nullopt : std::optional<double>(sum / count);
    }
  };

  std::optional<double> CpuWatts(absl::Duration at, std::optional<uint64_t> microjoules);

  Json latest_;
  std::optional<uint64_t> last_energy_;
  absl::Duration last_at_;
  Mean cpu_, gpu_;
  std::map<int, Mean> per_gpu_;
};

}  // namespace flowmesh::sidecar
