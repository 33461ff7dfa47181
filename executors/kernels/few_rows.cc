#include "executors/kernels/few_rows.h"

#include <immintrin.h>

#include <algorithm>

#include "executors/kernels/bfloat16.h"

namespace flowmesh::kernels {
namespace {

// A tile is kTileRows rows by kTileOutputs outputs: its sums stay in registers.
constexpr int kTileRows = 4;
constexpr int kTileOutputs = 4;

inline __attribute__((always_inline)) float Load(const float* p, int64_t i) { return p[i]; }
inline __attribute__((always_inline)) float Load(const uint16_t* p, int64_t i) {
  return FromBf16(p[i]);
}
inline void Store(float* p, float value) { *p = value; }
inline void Store(uint16_t* p, float value) { *p = ToBf16(value); }

// One row by four outputs, for the compiler to vectorise.
template <typename T>
inline __attribute__((always_inline)) void DotFour(const T* x, const T* w, int64_t in,
                                                   float sums[4]) {
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
inline __attribute__((always_inline)) float Dot(const T* x, const T* w, int64_t in) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < in; ++i) sum += Load(x, i) * Load(w, i);
  return sum;
}

// Four weight rows stay in the first-level cache while all rows of x pass over them.
template <typename T>
inline __attribute__((always_inline)) void Portable(const T* x, const T* w, const T* bias, T* y,
                                                    const FewRowsShape& s, int64_t begin,
                                                    int64_t end) {
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

// R rows by O outputs over the whole inner dimension. R == 1 keeps two sums per output, so that the
// products' latency is hidden.
template <int R, int O>
AVX512_BF16 inline void TileBf16(const uint16_t* x, const uint16_t* w, int64_t in,
                                 float sums[R][O]) {
  constexpr int kUnroll = R == 1 ? 2 : 1;
  __m512 acc[kUnroll][R][O];
  for (auto& u : acc) {
    for (auto& row : u) {
      for (auto& a : row) a = _mm512_setzero_ps();
    }
  }
  const int64_t step = 32 * kUnroll;
  int64_t i = 0;
  for (; i + step <= in; i += step) {
    for (int u = 0; u < kUnroll; ++u) {
      __m512bh xs[R];
      for (int r = 0; r < R; ++r) {
        xs[r] = (__m512bh)_mm512_loadu_si512(x + r * in + i + 32 * u);
      }
      for (int o = 0; o < O; ++o) {
        const auto ws = (__m512bh)_mm512_loadu_si512(w + o * in + i + 32 * u);
        for (int r = 0; r < R; ++r) acc[u][r][o] = _mm512_dpbf16_ps(acc[u][r][o], ws, xs[r]);
      }
    }
  }
  for (; i < in; i += 32) {
    const int64_t left = in - i;
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    __m512bh xs[R];
    for (int r = 0; r < R; ++r) xs[r] = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * in + i);
    for (int o = 0; o < O; ++o) {
      const auto ws = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + o * in + i);
      for (int r = 0; r < R; ++r) acc[0][r][o] = _mm512_dpbf16_ps(acc[0][r][o], ws, xs[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int o = 0; o < O; ++o) {
      __m512 total = acc[0][r][o];
      if constexpr (kUnroll == 2) total = _mm512_add_ps(total, acc[1][r][o]);
      sums[r][o] = _mm512_reduce_add_ps(total);
    }
  }
}

template <int R, int O>
AVX512_BF16 inline void TileAndStore(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                                     uint16_t* y, const FewRowsShape& s, int64_t r, int64_t o) {
  float sums[R][O];
  TileBf16<R, O>(x + r * s.in, w + o * s.in, s.in, sums);
  for (int i = 0; i < R; ++i) {
    for (int k = 0; k < O; ++k) {
      const float sum = bias == nullptr ? sums[i][k] : sums[i][k] + FromBf16(bias[o + k]);
      y[(r + i) * s.out + o + k] = ToBf16(sum);
    }
  }
}

template <int O>
AVX512_BF16 void AllRows(const uint16_t* x, const uint16_t* w, const uint16_t* bias, uint16_t* y,
                         const FewRowsShape& s, int64_t o) {
  int64_t r = 0;
  for (; r + kTileRows <= s.rows; r += kTileRows) {
    TileAndStore<kTileRows, O>(x, w, bias, y, s, r, o);
  }
  switch (s.rows - r) {
    case 3:
      return TileAndStore<3, O>(x, w, bias, y, s, r, o);
    case 2:
      return TileAndStore<2, O>(x, w, bias, y, s, r, o);
    case 1:
      return TileAndStore<1, O>(x, w, bias, y, s, r, o);
    default:
      return;
  }
}

AVX512_BF16 void FewRowsBf16Avx512(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                                   uint16_t* y, const FewRowsShape& s, int64_t begin, int64_t end) {
  int64_t o = begin;
  for (; o + kTileOutputs <= end; o += kTileOutputs) {
    AllRows<kTileOutputs>(x, w, bias, y, s, o);
  }
  for (; o < end; ++o) AllRows<1>(x, w, bias, y, s, o);
}

}  // namespace

bool HasNativeBf16() {
  static const bool has = __builtin_cpu_supports("avx512bf16") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
}

#define EVERY_CPU __attribute__((target_clones("avx512f", "arch=haswell", "default")))

EVERY_CPU void FewRowsBf16Portable(const uint16_t* x, const uint16_t* w, const uint16_t* bias,
                                   uint16_t* y, const FewRowsShape& shape, int64_t begin,
                                   int64_t end) {
  Portable(x, w, bias, y, shape, begin, end);
}

EVERY_CPU void FewRowsFp32(const float* x, const float* w, const float* bias, float* y,
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
