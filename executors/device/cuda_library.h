// libtorch's CUDA half, which a process opens only when it computes on a GPU: linked, it would cost
// one that computes on the CPU 0.2 s and hundreds of megabytes.
#pragma once

#include <optional>

#include "common/status.h"

namespace flowmesh::device {

// Opens the library for the whole process and checks that it finds a device. NotFound: libtorch's
// CPU set is installed. FailedPrecondition: no usable device.
absl::Status LoadCudaLibrary();

// The GPUs that this process may use; 0 before LoadCudaLibrary.
int CountGpus();

// The first part of a GPU's compute capability, 8 of 8.6; nothing when it is not known.
std::optional<int> ComputeCapability(int index);

// Makes a GPU the calling thread's current one, on which libtorch allocates where nothing else is
// said. All GPUs of a group are visible to each of its ranks. FailedPrecondition: there is no such
// GPU, or it cannot be used.
absl::Status SelectGpu(int index);

}  // namespace flowmesh::device
