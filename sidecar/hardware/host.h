// What this machine is, as `hardware_json` and heartbeats tell it (PROTOCOL.md 2.4 and 3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/json.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::sidecar {

struct HostInfo {
  int logical_cores = 1;
  std::string cpu_model;                       // `x86_64`
  std::optional<uint64_t> memory_total_bytes;  // MemTotal
  std::optional<std::string> ip;               // of the host's own name
};

// Reads the machine's facts; resolves the own host name, which may take a moment.
HostInfo ReadHostInfo();

// MemTotal of a /proc/meminfo; nothing when it does not say.
std::optional<uint64_t> ParseMemTotal(const std::string& meminfo);

// `hardware_json` of a worker: the machine's, with the GPUs of its executor.
Json HardwareJson(const HostInfo& host, const v1::DeviceGroup& devices,
                  std::optional<double> bandwidth_bytes_per_second);

// `{"1m": ..., "5m": ..., "15m": ...}`; nothing when the system does not tell.
std::optional<Json> LoadAverages();

}  // namespace flowmesh::sidecar
