// y = x W^T + b for a few rows of x: each weight is read from memory once and used for all rows.
// Plain pointers, no libtorch; single-threaded: callers split the outputs between threads.
#pragma once

#include <cstdint>

namespace flowmesh::kernels {

// Whether this processor multiplies bfloat16 by itself (AVX-512 BF16).
bool HasNativeBf16();

struct FewRowsShape {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
};

// x: [rows, in], w: [out, in], bias: [out] or null, y: [rows, out]; all bfloat16 as raw bits.
// Computes the outputs begin..end-1 of every row. AVX-512 BF16 where the processor has it, else a
// portable twin.
void FewRowsBf16(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y,
                 const FewRowsShape& shape, int64_t begin, int64_t end);

// The same in float32.
void FewRowsFp32(const float* x, const float* w, const float* bias, float* y,
                 const FewRowsShape& shape, int64_t begin, int64_t end);

// The twin that FewRowsBf16 uses without AVX-512 BF16; public for its test.
void FewRowsBf16Portable(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y,
                         const FewRowsShape& shape, int64_t begin, int64_t end);

}  // namespace flowmesh::kernels
