#include "executors/retrieval/unit_vector.h"

#include <algorithm>
#include <cmath>

namespace flowmesh::retrieval {

std::vector<float> Unit(std::vector<float> vector) {
  double sum = 0;
  for (const float x : vector) sum += static_cast<double>(x) * x;
  const double length = std::max(std::sqrt(sum), 1e-12);
  for (float& x : vector) x = static_cast<float>(x / length);
  return vector;
}

// Many sums at a time, so that the compiler may use the widest registers there are.
float Dot(const float* a, const float* b, size_t n) {
  float sums[16] = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t k = 0; k < 16; ++k) sums[k] += a[i + k] * b[i + k];
  }
  float sum = 0;
  for (const float s : sums) sum += s;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace flowmesh::retrieval
