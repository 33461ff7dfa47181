#include "executors/kernels/paged_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "executors/kernels/portable.h"

namespace flowmesh::kernels {
namespace {

FLOWMESH_INLINE float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

FLOWMESH_INLINE void Axpy(float a, const float* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

template <typename T>
FLOWMESH_INLINE void Widen(const T* from, float* to, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) to[i] = Load(from, i);
}

// Scores to weights that sum to one, in place.
FLOWMESH_INLINE void Softmax(float* scores, int64_t n) {
  const float highest = *std::max_element(scores, scores + n);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    scores[i] = std::exp(scores[i] - highest);
    sum += scores[i];
  }
  const float factor = 1.0f / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) scores[i] *= factor;
}

// All query heads of one key-value head, for one token: each key and value is widened once.
template <typename T>
FLOWMESH_INLINE void Item(const T* q, const T* keys, const T* values, T* out,
                          const PagedToken& token, const PagedShape& s, int64_t kv_head,
                          std::vector<float>& scratch) {
  const int64_t group = s.heads / s.kv_heads;
  const int64_t first = s.window > 0 ? std::max<int64_t>(0, token.position + 1 - s.window) : 0;
  const int64_t seen = token.position + 1 - first;
  const int64_t d = s.head_dim;
  scratch.resize(static_cast<size_t>(group * seen + (2 * group + 1) * d));
  float* scores = scratch.data();          // [group, seen]
  float* queries = scores + group * seen;  // [group, d]
  float* sums = queries + group * d;       // [group, d]
  float* row = sums + group * d;           // [d]: one key or value
  Widen(q + kv_head * group * d, queries, group * d);
  std::fill(sums, sums + group * d, 0.0f);

  auto place = [&](int64_t position) {
    const int64_t block = token.block_table[position / s.block_tokens];
    return ((block * s.block_tokens + position % s.block_tokens) * s.kv_heads + kv_head) * d;
  };
  for (int64_t j = 0; j < seen; ++j) {
    Widen(keys + place(first + j), row, d);
    for (int64_t g = 0; g < group; ++g) {
      const float score = Dot(queries + g * d, row, d) * s.scale;
      scores[g * seen + j] = s.soft_cap > 0 ? s.soft_cap * std::tanh(score / s.soft_cap) : score;
    }
  }
  for (int64_t g = 0; g < group; ++g) Softmax(scores + g * seen, seen);
  for (int64_t j = 0; j < seen; ++j) {
    Widen(values + place(first + j), row, d);
    for (int64_t g = 0; g < group; ++g) Axpy(scores[g * seen + j], row, sums + g * d, d);
  }
  T* result = out + kv_head * group * d;
  for (int64_t i = 0; i < group * d; ++i) Store(result + i, sums[i]);
}

template <typename T>
FLOWMESH_INLINE void Items(const T* q, const T* keys, const T* values, T* out,
                           const PagedToken* tokens, const PagedShape& s, int64_t begin,
                           int64_t end) {
  std::vector<float> scratch;
  const int64_t stride = s.heads * s.head_dim;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t t = item / s.kv_heads;
    Item(q + t * stride, keys, values, out + t * stride, tokens[t], s, item % s.kv_heads, scratch);
  }
}

}  // namespace

FLOWMESH_EVERY_CPU void PagedAttentionFp32(const float* q, const float* keys, const float* values,
                                           float* out, const PagedToken* tokens,
                                           const PagedShape& shape, int64_t begin, int64_t end) {
  Items(q, keys, values, out, tokens, shape, begin, end);
}

FLOWMESH_EVERY_CPU void PagedAttentionBf16(const uint16_t* q, const uint16_t* keys,
                                           const uint16_t* values, uint16_t* out,
                                           const PagedToken* tokens, const PagedShape& shape,
                                           int64_t begin, int64_t end) {
  Items(q, keys, values, out, tokens, shape, begin, end);
}

}  // namespace flowmesh::kernels
