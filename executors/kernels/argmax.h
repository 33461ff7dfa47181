// The place of the largest element.
#pragma once

#include <cstdint>

namespace flowmesh::kernels {

// The lowest place on ties; 0 when n is 0. NaN never wins.
int64_t Argmax(const float* values, int64_t n);

}  // namespace flowmesh::kernels
