#include "executors/device/cuda_library.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <exception>

#include "absl/strings/str_cat.h"

namespace flowmesh::device {

absl::Status LoadCudaLibrary() {
  if (::dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::NotFoundError(absl::StrCat("libtorch's CUDA set is not installed: ", ::dlerror()));
  }
  if (CountGpus() <= 0) {
    return absl::FailedPreconditionError("libtorch finds no usable CUDA device");
  }
  return absl::OkStatus();
}

int CountGpus() {
  // c10::cuda::device_count(), looked up so that no CUDA header is needed here.
  using DeviceCount = signed char (*)();
  const auto device_count =
      reinterpret_cast<DeviceCount>(::dlsym(RTLD_DEFAULT, "_ZN3c104cuda12device_countEv"));
  return device_count == nullptr ? 0 : device_count();
}

std::optional<int> ComputeCapability(int index) {
  // From the CUDA runtime, looked up for the same reason.
  using GetAttribute = int (*)(int* value, int attribute, int device);
  constexpr int kComputeCapabilityMajor = 75;  // cudaDevAttrComputeCapabilityMajor
  const auto get = reinterpret_cast<GetAttribute>(::dlsym(RTLD_DEFAULT, "cudaDeviceGetAttribute"));
  int major = 0;
  if (get == nullptr || get(&major, kComputeCapabilityMajor, index) != 0) return std::nullopt;
  return major;
}

absl::Status SelectGpu(int index) {
  try {
    const c10::Device gpu(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
    c10::impl::VirtualGuardImpl(c10::kCUDA).setDevice(gpu);
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("GPU ", index, " of those visible: ", error.what()));
  }
}

}  // namespace flowmesh::device
