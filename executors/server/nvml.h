// The NVIDIA management library, opened at run time: what GPUs there are and how they fare, without
// CUDA and without linking anything. Absent on a machine without a driver, which is no error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::executor {

struct GpuInfo {
  int index = 0;  // physical, in PCI order
  std::string name;
  std::string uuid;  // `GPU-1b2c...`
  std::optional<uint64_t> memory_total_bytes;
};

struct GpuReading {
  std::optional<double> power_watts;
  std::optional<double> utilization_pct;
  std::optional<uint64_t> memory_used_bytes;
  std::optional<uint64_t> memory_total_bytes;
  std::optional<double> temperature_celsius;
};

// Thread-safe, as the library is.
class Nvml {
 public:
  // NotFound: no such library, hence no driver. Unavailable: there is one that does not start.
  static absl::StatusOr<std::unique_ptr<Nvml>> Open(const char* library = "libnvidia-ml.so.1");
  ~Nvml();

  // All GPUs of the machine that answer.
  std::vector<GpuInfo> Gpus() const;
  // Sampled now; a sensor that cannot be read is absent.
  GpuReading Read(int index) const;

  std::string DriverVersion() const;  // `570.86.10`; empty when unknown
  std::string CudaVersion() const;    // `12.8`; empty when unknown

 private:
  struct Functions;
  Nvml(void* library, std::unique_ptr<Functions> functions);

  void* library_;
  std::unique_ptr<Functions> functions_;
};

}  // namespace flowmesh::executor
