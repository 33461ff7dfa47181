#include "executors/server/devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string FakeLibrary() {
  return std::string(std::getenv("FLOWMESH_BIN_DIR")) + "/../tests/fake_nvml/libnvidia-ml.so.1";
}

const std::vector<GpuInfo>& All() {
  static const std::vector<GpuInfo> gpus = {{0, "A", "GPU-aaaa-0", 1},
                                            {1, "A", "GPU-aaaa-1", 1},
                                            {2, "B", "GPU-bbbb-2", 1},
                                            {3, "B", "GPU-cccc-3", 1}};
  return gpus;
}

std::vector<int> Indexes(const std::vector<GpuInfo>& gpus) {
  std::vector<int> result;
  for (const GpuInfo& gpu : gpus) result.push_back(gpu.index);
  return result;
}

TEST(VisibleGpus, FollowCudaVisibleDevices) {
  const auto visible = [](const std::optional<std::string>& value) {
    return Indexes(VisibleGpus(All(), value));
  };
  EXPECT_THAT(visible(std::nullopt), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(visible(""), IsEmpty());
  EXPECT_THAT(visible("2,0"), ElementsAre(2, 0));
  EXPECT_THAT(visible(" 1 , GPU-bbbb-2 "), ElementsAre(1, 2));
  EXPECT_THAT(visible("GPU-cc"), ElementsAre(3));
  EXPECT_THAT(visible("GPU-aaaa"), IsEmpty());    // ambiguous
  EXPECT_THAT(visible("0,9,1"), ElementsAre(0));  // as CUDA: the first wrong entry ends the list
  EXPECT_THAT(visible("-1"), IsEmpty());
  EXPECT_THAT(visible("none"), IsEmpty());
}

TEST(SelectGpus, ChoosesAmongTheVisibleOnes) {
  const std::vector<GpuInfo> visible = VisibleGpus(All(), "3,1");
  EXPECT_THAT(Indexes(SelectGpus(visible, "auto").value()), ElementsAre(3, 1));
  EXPECT_THAT(Indexes(SelectGpus(visible, " AUTO ").value()), ElementsAre(3, 1));
  EXPECT_THAT(SelectGpus(visible, "cpu").value(), IsEmpty());
  EXPECT_THAT(Indexes(SelectGpus(visible, "1").value()), ElementsAre(1));  // a place
  EXPECT_THAT(Indexes(SelectGpus(visible, "1,0").value()), ElementsAre(1, 3));
  EXPECT_THAT(Indexes(SelectGpus(visible, "GPU-cccc-3").value()), ElementsAre(3));
}

TEST(SelectGpus, RefusesWhatIsNotThere) {
  const auto error = [](const char* devices) {
    return Message(SelectGpus(VisibleGpus(All(), "3,1"), devices).status());
  };
  EXPECT_EQ(error("2"),
            "EXECUTOR_DEVICES: expected auto, cpu, or places and UUIDs among the 2 visible GPUs, "
            "got \"2\"");
  EXPECT_THAT(error("GPU-bbbb-2"), HasSubstr("got \"GPU-bbbb-2\""));
  EXPECT_THAT(error("gpu"), HasSubstr("got \"gpu\""));
  EXPECT_THAT(error(","), HasSubstr("got \",\""));
  EXPECT_THAT(error("0,0"), HasSubstr("expected each GPU once, got \"0\" again"));
}

TEST(Nvml, AbsentOnAMachineWithoutADriver) {
  EXPECT_TRUE(absl::IsNotFound(Nvml::Open("libno-such-nvml.so.1").status()));
}

TEST(Nvml, ALibraryThatIsNoNvmlOrDoesNotStartIsAnError) {
  EXPECT_TRUE(absl::IsUnavailable(Nvml::Open("libm.so.6").status()));
  ::setenv("FAKE_NVML", "broken", 1);
  EXPECT_THAT(Message(Nvml::Open(FakeLibrary().c_str()).status()), HasSubstr("nvmlInit gives 9"));
  ::unsetenv("FAKE_NVML");
}

TEST(Nvml, GpusAndTelemetry) {
  const auto nvml = Nvml::Open(FakeLibrary().c_str());
  ASSERT_TRUE(nvml.ok()) << nvml.status();
  const std::vector<GpuInfo> gpus = (*nvml)->Gpus();
  ASSERT_THAT(Indexes(gpus), ElementsAre(0, 1));  // the lost one is left out
  EXPECT_EQ(gpus[0].name, "NVIDIA Test");
  EXPECT_EQ(gpus[1].uuid, "GPU-aabb-2");

  const v1::DeviceGroup group = ToProto(gpus, nvml->get(), 4);
  EXPECT_EQ(group.driver_version(), "570.86.10");
  EXPECT_EQ(group.cuda_version(), "12.8");
  EXPECT_EQ(group.cpu_threads(), 4);
  EXPECT_EQ(group.gpus(0).memory_total_bytes(), 80ull << 30);
  EXPECT_EQ(VisibleDevicesOf(group), "GPU-aaaa-1,GPU-aabb-2");

  // An executor on the CPU of this machine describes one without GPUs.
  const v1::DeviceGroup none = ToProto({}, nvml->get(), 4);
  EXPECT_EQ(none.driver_version(), "");
  EXPECT_EQ(none.cuda_version(), "");
  EXPECT_EQ(none.cpu_threads(), 4);

  const v1::Telemetry telemetry = ReadTelemetry(group, nvml->get());
  ASSERT_EQ(telemetry.gpus_size(), 2);
  EXPECT_DOUBLE_EQ(telemetry.gpus(0).power_watts(), 123.5);
  EXPECT_DOUBLE_EQ(telemetry.gpus(0).utilization_pct(), 42);
  EXPECT_EQ(telemetry.gpus(0).memory_used_bytes(), 1ull << 30);
  EXPECT_DOUBLE_EQ(telemetry.gpus(0).temperature_celsius(), 55);
  EXPECT_FALSE(telemetry.gpus(1).has_power_watts());
}

}  // namespace
}  // namespace flowmesh::executor
