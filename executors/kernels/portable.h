// What the portable kernels share: plain loops over float32 or bfloat16 in memory, computed in
// float32, which the compiler vectorises once per instruction set.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "executors/kernels/bfloat16.h"

// A loop's body has to be inlined into each of its clones to be vectorised for it.
#define FLOWMESH_INLINE inline __attribute__((always_inline))
#define FLOWMESH_EVERY_CPU __attribute__((target_clones("avx512f", "arch=haswell", "default")))

namespace flowmesh::kernels {

FLOWMESH_INLINE float Load(const float* p, int64_t i) { return p[i]; }
FLOWMESH_INLINE float Load(const uint16_t* p, int64_t i) { return FromBf16(p[i]); }
FLOWMESH_INLINE void Store(float* p, float value) { *p = value; }
FLOWMESH_INLINE void Store(uint16_t* p, float value) { *p = ToBf16(value); }

// e^x for x <= 0 to about 2 units in the last place: x = n ln 2 + r with |r| <= ln 2 / 2, and a
// polynomial in r (the coefficients of Cephes' expf). NaN stays NaN.
FLOWMESH_INLINE float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace flowmesh::kernels
