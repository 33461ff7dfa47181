#include "executors/kernels/few_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "executors/kernels/portable.h"

namespace flowmesh::kernels {
namespace {

// One row by four outputs, for the compiler to vectorise.
template <typename T>
FLOWMESH_INLINE void DotFour(const T* x, const T* w, int64_t in, float sums[4]) {
  float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
  const T *w0 = w, *w1 = w + in, *w2 = w + 2 * in, *w3 = w + 3 * in;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (int64_t i = 0; i < in; ++i) {
    const float xi = Load(x, i);
    s0 += xi * Load(w0, i);
    s1 += xi * Load(w1, i);
    s2 += xi * Load(w2, i);
    s3 += xi * Load(w3, i);
  }
  sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

template <typename T>
FLOWMESH_INLINE float Dot(const T* x, const T* w, int64_t in) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < in; ++i) sum += Load(x, i) * Load(w, i);
  return sum;
}

// Four weight rows stay in the first-level cache while all rows of x pass over them.
template <typename T>
FLOWMESH_INLINE void Portable(const T* x, const T* w, const T* bias, T* y, const FewRowsShape& s,
                              int64_t begin, int64_t end) {
  int64_t o = begin;
  for (; o + 4 <= end; o += 4) {
    for (int64_t r = 0; r < s.rows; ++r) {
      float sums[4];
      DotFour(x + r * s.in, w + o * s.in, s.in, sums);
      for (int k = 0; k < 4; ++k) {
        Store(y + r * s.out + o + k, bias == nullptr ? sums[k] : sums[k] + Load(bias, o + k));
      }
    }
  }
  for (; o < end; ++o) {
    for (int64_t r = 0; r < s.rows; ++r) {
      const float sum = Dot(x + r * s.in, w + o * s.in, s.in);
      Store(y + r * s.out + o, bias == nullptr ? sum : sum + Load(bias, o));
    }
  }
}

#define AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

// Neighbouring groups of four lanes added: a's in the lower half of the result, b's in the upper.
AVX512_BF16 inline __m512 AddLaneGroups(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// Lane i of the result is the sum of the lanes of v[i].
AVX512_BF16 inline __m512 SumEach(const __m512 (&v)[16]) {
  __m512 pairs[8], quads[4], halves[2];
  for (int i = 0; i < 8; ++i) {
    const __m512 a = v[2 * i], b = v[2 * i + 1];
    pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
    quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int i = 0; i < 2; ++i) halves[i] = AddLaneGroups(quads[2 * i], quads[2 * i + 1]);
  return AddLaneGroups(halves[0], halves[1]);
}

// R rows by O outputs over the whole inner dimension, their sums in registers. Each sum is taken in
// the same order whatever R and O are, so that a row never depends on its neighbours.
template <int R, int O>
AVX512_BF16 inline void Tile(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                             uint16_t* y, const FewRowsShape& s) {
  static_assert(R * O <= 16);
  __m512 sums[16];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  int64_t i = 0;
  for (; i + 32 <= s.in; i += 32) {
    __m512bh xs[R];
    for (int r = 0; r < R; ++r) xs[r] = (__m512bh)_mm512_loadu_si512(x + r * s.in + i);
    for (int o = 0; o < O; ++o) {
      const auto ws = (__m512bh)_mm512_loadu_si512(w + o * s.in + i);
      for (int r = 0; r < R; ++r) sums[r * O + o] = _mm512_dpbf16_ps(sums[r * O + o], ws, xs[r]);
    }
  }
  if (i < s.in) {
    const __mmask32 mask = (1u << (s.in - i)) - 1;
    __m512bh xs[R];
    for (int r = 0; r < R; ++r) {
      xs[r] = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * s.in + i);
    }
    for (int o = 0; o < O; ++o) {
      const auto ws = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + o * s.in + i);
      for (int r = 0; r < R; ++r) sums[r * O + o] = _mm512_dpbf16_ps(sums[r * O + o], ws, xs[r]);
    }
  }
  __m512 total = SumEach(sums);
  if (bias != nullptr) {
    float added[16] = {};
    for (int k = 0; k < R * O; ++k) added[k] = FromBf16(bias[k % O]);
    total = _mm512_add_ps(total, _mm512_loadu_ps(added));
  }
  uint16_t rounded[16];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded), (__m256i)_mm512_cvtneps_pbh(total));
  for (int r = 0; r < R; ++r) std::memcpy(y + r * s.out, rounded + r * O, O * sizeof(uint16_t));
}

// Outputs 0..count-1 of R rows, in tiles of O outputs while they last.
template <int R, int O>
AVX512_BF16 inline void Tiles(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                              uint16_t* y, const FewRowsShape& s, int64_t count) {
  const auto bias_at = [&](int64_t o) { return bias == nullptr ? nullptr : bias + o; };
  int64_t o = 0;
  for (; o + O <= count; o += O) Tile<R, O>(x, w + o * s.in, bias_at(o), y + o, s);
  for (; o < count; ++o) Tile<R, 1>(x, w + o * s.in, bias_at(o), y + o, s);
}

// A block of weights stays in the first-level cache while all rows of x pass over it; meanwhile the
// next block is on its way.
AVX512_BF16 void FewRowsBf16Avx512(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                                   uint16_t* y, const FewRowsShape& s, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 16;
  for (int64_t o = begin; o < end; o += kBlock) {
    const int64_t count = std::min(kBlock, end - o);
    const uint16_t* block = w + o * s.in;
    const uint16_t* block_bias = bias == nullptr ? nullptr : bias + o;
    int64_t r = 0;
    const auto next = reinterpret_cast<const char*>(block + kBlock * s.in);
    const int64_t next_bytes = std::min(kBlock, end - o - count) * s.in * 2;
    const int64_t share = (next_bytes / ((s.rows + 3) / 4) + 63) / 64 * 64;
    for (; r + 4 <= s.rows; r += 4) {
      for (int64_t i = r / 4 * share; i < std::min((r / 4 + 1) * share, next_bytes); i += 64) {
        _mm_prefetch(next + i, _MM_HINT_T1);
      }
      Tiles<4, 4>(x + r * s.in, block, block_bias, y + r * s.out + o, s, count);
    }
    const uint16_t* rest = x + r * s.in;
    uint16_t* rest_y = y + r * s.out + o;
    if (s.rows - r == 3) Tiles<3, 4>(rest, block, block_bias, rest_y, s, count);
    if (s.rows - r == 2) Tiles<2, 8>(rest, block, block_bias, rest_y, s, count);
    if (s.rows - r == 1) Tiles<1, 8>(rest, block, block_bias, rest_y, s, count);
  }
}

}  // namespace

bool HasNativeBf16() {
  static const bool has = __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
}

FLOWMESH_EVERY_CPU void FewRowsBf16Portable(const uint16_t* x, const uint16_t* w,
                                            const uint16_t* bias, uint16_t* y,
                                            const FewRowsShape& shape, int64_t begin, int64_t end) {
  Portable(x, w, bias, y, shape, begin, end);
}

FLOWMESH_EVERY_CPU void FewRowsFp32(const float* x, const float* w, const float* bias, float* y,
                                    const FewRowsShape& shape, int64_t begin, int64_t end) {
  Portable(x, w, bias, y, shape, begin, end);
}

void FewRowsBf16(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y,
                 const FewRowsShape& shape, int64_t begin, int64_t end) {
  if (HasNativeBf16()) {
    FewRowsBf16Avx512(x, w, bias, y, shape, begin, end);
  } else {
    FewRowsBf16Portable(x, w, bias, y, shape, begin, end);
  }
}

}  // namespace flowmesh::kernels
