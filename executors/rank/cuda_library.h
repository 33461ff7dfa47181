// libtorch's CUDA half, which a rank opens only when it computes on a GPU: linked, it would cost
// every CPU rank 0.2 s and hundreds of megabytes.
#pragma once

#include "common/status.h"

namespace flowmesh::rank {

// Opens the library for the whole process and checks that it finds a device. NotFound: libtorch's
// CPU set is installed. FailedPrecondition: no usable device.
absl::Status LoadCudaLibrary();

}  // namespace flowmesh::rank
