// Which GPUs an executor computes on.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "executors/server/nvml.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::executor {

// The GPUs that CUDA_VISIBLE_DEVICES lets us see, in its order: all when it is unset, none when it
// is empty. As in CUDA, entries are places or UUIDs (or unique beginnings of those), and the first
// entry that names no GPU hides all from there on.
std::vector<GpuInfo> VisibleGpus(const std::vector<GpuInfo>& all,
                                 const std::optional<std::string>& visible_devices);

// The executor's GPUs among the visible ones. `devices`: `auto` all, `cpu` none, else places among
// the visible GPUs or UUIDs. InvalidArgument: an entry that names none, or one twice.
absl::StatusOr<std::vector<GpuInfo>> SelectGpus(const std::vector<GpuInfo>& visible,
                                                std::string_view devices);

v1::DeviceGroup ToProto(const std::vector<GpuInfo>& gpus, const Nvml* nvml, int cpu_threads);

// UUIDs by comma: the value of CUDA_VISIBLE_DEVICES that means exactly these, whatever their order.
std::string VisibleDevicesOf(const v1::DeviceGroup& devices);

// Samples the group's GPUs; `nvml` may be null.
v1::Telemetry ReadTelemetry(const v1::DeviceGroup& devices, const Nvml* nvml);

}  // namespace flowmesh::executor
