// For tests: the device of the models that they test.
#pragma once

#include <c10/core/Device.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "executors/device/cuda_library.h"

namespace flowmesh::device {

// The CPU; the first GPU in the tests NAME_gpu, which `./dev test --gpu` runs besides NAME.
inline at::Device TestDevice() {
  static const at::Device device = [] {
    const char* wanted = std::getenv("FLOWMESH_TEST_DEVICE");
    if (wanted == nullptr || std::string_view(wanted) != "cuda") return at::Device(at::kCPU);
    const absl::Status loaded = LoadCudaLibrary();
    if (!loaded.ok()) throw std::runtime_error(loaded.ToString());
    return at::Device(at::kCUDA, 0);
  }();
  return device;
}

}  // namespace flowmesh::device
