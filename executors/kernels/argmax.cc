#include "executors/kernels/argmax.h"

#include <limits>

namespace flowmesh::kernels {

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) int64_t Argmax(
    const float* values, int64_t n) {
  float highest = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < n; ++i) highest = values[i] > highest ? values[i] : highest;
  for (int64_t i = 0; i < n; ++i) {
    if (values[i] == highest) return i;
  }
  return 0;
}

}  // namespace flowmesh::kernels
