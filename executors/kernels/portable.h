// What the portable kernels share: plain loops over float32 or bfloat16 in memory, computed in
// float32, which the compiler vectorises once per instruction set.
#pragma once

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

}  // namespace flowmesh::kernels
