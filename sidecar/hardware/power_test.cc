#include "sidecar/hardware/power.h"

#include <gtest/gtest.h>

#include "common/files.h"

namespace flowmesh::sidecar {
namespace {

const absl::Time kWall = absl::FromUnixMicros(1762160430000100);  // 2025-11-03T09:00:30.000100

v1::Telemetry Gpus(std::vector<std::optional<double>> watts) {
  v1::Telemetry telemetry;
  for (size_t i = 0; i < watts.size(); ++i) {
    v1::GpuTelemetry& gpu = *telemetry.add_gpus();
    gpu.set_index(static_cast<int>(i));
    if (watts[i]) gpu.set_power_watts(*watts[i]);
  }
  return telemetry;
}

TEST(PowerTest, TheFirstSampleHasNoCpuPower) {
  PowerMeter meter;
  EXPECT_TRUE(meter.latest().is_null());
  meter.Add(absl::Seconds(1), kWall, 1000, v1::Telemetry());
  EXPECT_EQ(meter.latest(),
            ParseJson(R"({"timestamp":"2025-11-03T09:00:30.000100+00:00","cpu_watts":null,
                                          "gpu_watts":{"total":null,"per_gpu":[]}})")
                .value());
  EXPECT_EQ(meter.Summary(absl::Seconds(5)), ParseJson(R"({"uptime_sec":5.0,"avg_cpu_watts":null,
      "avg_gpu_watts":null,"per_gpu_avg_watts":{},"estimated_energy_kwh":null,
      "estimated_energy_breakdown":{"cpu_kwh":null,"gpu_kwh":null},"samples":{"cpu":0,"gpu":0}})")
                                                 .value());
}

TEST(PowerTest, PowerIsTheCountersDifferenceOverTime) {
  PowerMeter meter;
  meter.Add(absl::Seconds(0), kWall, 5'000'000, Gpus({100.0}));
  meter.Add(absl::Seconds(2), kWall, 125'000'000, Gpus({140.0}));
  EXPECT_EQ(meter.latest()["cpu_watts"], 60.0);
  EXPECT_EQ(meter.latest()["gpu_watts"],
            ParseJson(R"({"total":140.0,"per_gpu":[{"index":0,"power_w":140.0}]})").value());
  const Json summary = meter.Summary(absl::Hours(2));
  EXPECT_EQ(summary["avg_cpu_watts"], 60.0);
  EXPECT_EQ(summary["avg_gpu_watts"], 120.0);
  EXPECT_EQ(summary["per_gpu_avg_watts"], Json({{"0", 120.0}}));
  EXPECT_DOUBLE_EQ(summary["estimated_energy_breakdown"]["cpu_kwh"].get<double>(), 0.12);
  EXPECT_DOUBLE_EQ(summary["estimated_energy_breakdown"]["gpu_kwh"].get<double>(), 0.24);
  EXPECT_DOUBLE_EQ(summary["estimated_energy_kwh"].get<double>(), 0.36);
  EXPECT_EQ(summary["samples"], Json({{"cpu", 1}, {"gpu", 2}}));
}

TEST(PowerTest, AWrapAndAMissingReadingGiveNoNumber) {
  PowerMeter meter;
  meter.Add(absl::Seconds(0), kWall, 5000, v1::Telemetry());
  meter.Add(absl::Seconds(1), kWall, 10, v1::Telemetry());
  EXPECT_EQ(meter.latest()["cpu_watts"], nullptr);
  meter.Add(absl::Seconds(2), kWall, std::nullopt, v1::Telemetry());
  EXPECT_EQ(meter.latest()["cpu_watts"], nullptr);
  meter.Add(absl::Seconds(3), kWall, 20, v1::Telemetry());
  EXPECT_EQ(meter.latest()["cpu_watts"], nullptr);
  meter.Add(absl::Seconds(4), kWall, 1'000'020, v1::Telemetry());
  EXPECT_EQ(meter.latest()["cpu_watts"], 1.0);
}

TEST(PowerTest, AGpuThatTellsNothingIsNullAndLeftOutOfTheTotal) {
  PowerMeter meter;
  meter.Add(absl::Seconds(0), kWall, std::nullopt, Gpus({std::nullopt, 50.0}));
  EXPECT_EQ(meter.latest()["gpu_watts"]["total"], 50.0);
  EXPECT_EQ(meter.latest()["gpu_watts"]["per_gpu"][0]["power_w"], nullptr);
  EXPECT_EQ(meter.Summary(absl::Hours(1))["estimated_energy_kwh"], 0.05);
}

TEST(PowerTest, ReadsTheProcessorsCounterInTheOrderOfTheProtocol) {
  const TempDir root;
  EXPECT_FALSE(ReadCpuEnergy(root.path()));
  EXPECT_FALSE(ReadCpuEnergy(root / "missing"));
  const auto write = [&](const char* zone, const char* text) {
    ASSERT_TRUE(MakeDirectories(root / zone).ok());
    ASSERT_TRUE(WriteFileAtomically(root / zone / "energy_uj", text).ok());
  };
  write("zone:1", "7\n");
  EXPECT_EQ(ReadCpuEnergy(root.path()), 7u);
  write("amd-rapl:0", "8\n");
  EXPECT_EQ(ReadCpuEnergy(root.path()), 8u);
  write("intel-rapl:0", "unreadable");
  EXPECT_EQ(ReadCpuEnergy(root.path()), 8u);
  write("intel-rapl:0", "9\n");
  EXPECT_EQ(ReadCpuEnergy(root.path()), 9u);
}

}  // namespace
}  // namespace flowmesh::sidecar
