// For tests: the device of the models that they test.
#pragma once

#include <c10/core/Device.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "executors/device/cuda_library.h"

namespace flowmesh::device {

// The CPU; in the tests NAME_gpu, which `./dev test --gpu` runs besides NAME, the first GPU, or
// that of this rank.
inline at::Device TestDevice() {
  static const at::Device device = [] {
    const char* wanted = std::getenv("FLOWMESH_TEST_DEVICE");
    if (wanted == nullptr || std::string_view(wanted) != "cuda") return at::Device(at::kCPU);
    const absl::Status loaded = LoadCudaLibrary();
    if (!loaded.ok()) throw std::runtime_error(loaded.ToString());
    const char* rank = std::getenv("LOCAL_RANK");
    const int own = rank == nullptr ? 0 : std::atoi(rank);
    const absl::Status selected = SelectGpu(own);
    if (!selected.ok()) throw std::runtime_error(selected.ToString());
    return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(own));
  }();
  return device;
}

}  // namespace flowmesh::device
