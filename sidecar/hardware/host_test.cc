#include "sidecar/hardware/host.h"

#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

const HostInfo kHost = {.logical_cores = 16,
                        .cpu_model = "x86_64",
                        .memory_total_bytes = 137438953472,
                        .ip = "172.17.0.4"};

TEST(HostTest, HardwareIsTheDocumentOfTheProtocol) {
  v1::DeviceGroup devices;
  devices.set_driver_version("570.86.10");
  devices.set_cuda_version("12.8");
  v1::Gpu& gpu = *devices.add_gpus();
  gpu.set_name("NVIDIA H200");
  gpu.set_uuid("GPU-1b2c3d4e-0000-1111-2222-333344445555");
  gpu.set_memory_total_bytes(150754820096);
  EXPECT_EQ(HardwareJson(kHost, devices, 12500000.0), ParseJson(R"({
    "cpu": {"logical_cores": 16, "model": "x86_64"},
    "memory": {"total_bytes": 137438953472},
    "gpu": {"driver_version": "570.86.10", "cuda_version": "12.8",
            "gpus": [{"index": 0, "name": "NVIDIA H200", "uuid": "GPU-1b2c3d4e-0000-1111-2222-333344445555",
                      "memory_total_bytes": 150754820096}]},
    "network": {"ip": "172.17.0.4", "bandwidth_bytes_per_sec": 12500000.0}})")
                                                          .value());
}

TEST(HostTest, WhatIsUnknownIsNullAndNoGpuIsAnEmptyList) {
  const Json hardware = HardwareJson({.logical_cores = 2}, v1::DeviceGroup(), std::nullopt);
  EXPECT_EQ(hardware["memory"]["total_bytes"], nullptr);
  EXPECT_EQ(hardware["gpu"],
            ParseJson(R"({"driver_version":null,"cuda_version":null,"gpus":[]})").value());
  EXPECT_EQ(hardware["network"], Json({{"ip", nullptr}}));
  v1::DeviceGroup devices;
  devices.set_driver_version("570.86.10");
  devices.set_cuda_version("12.8");
  EXPECT_EQ(HardwareJson(kHost, devices, std::nullopt)["gpu"], hardware["gpu"]);
  devices.add_gpus()->set_name("x");
  EXPECT_FALSE(
      HardwareJson(kHost, devices, std::nullopt)["gpu"]["gpus"][0].contains("memory_total_bytes"));
}

TEST(HostTest, ReadsThisMachine) {
  const HostInfo host = ReadHostInfo();
  EXPECT_GE(host.logical_cores, 1);
  EXPECT_FALSE(host.cpu_model.empty());
  ASSERT_TRUE(host.memory_total_bytes);
  EXPECT_GT(*host.memory_total_bytes, uint64_t{1} << 20);
  const std::optional<Json> load = LoadAverages();
  ASSERT_TRUE(load);
  EXPECT_TRUE((*load)["15m"].is_number());
}

TEST(HostTest, MemTotalIsFoundOrNothing) {
  EXPECT_EQ(ParseMemTotal("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2048u * 1024);
  EXPECT_FALSE(ParseMemTotal("MemTotal: lots\n"));
  EXPECT_FALSE(ParseMemTotal(""));
}

}  // namespace
}  // namespace flowmesh::sidecar
