#include "executors/kernels/elementwise.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "executors/kernels/gradients.h"
#include "executors/kernels/portable.h"

namespace flowmesh::kernels {
namespace {

// Elements that a thread should at least have.
constexpr int64_t kGrain = 16384;

// To the precision of T and back.
template <typename T>
FLOWMESH_INLINE float Rounded(float value) {
  T stored;
  Store(&stored, value);
  return Load(&stored, 0);
}

FLOWMESH_INLINE void NormRow(const uint16_t* x, const uint16_t* w, uint16_t* y, int64_t width,
                             float eps, NormWeight form) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) squares += Load(x, i) * Load(x, i);
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
  if (form == NormWeight::kOnePlus) {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) Store(y + i, Load(x, i) * scale * (Load(w, i) + 1.0f));
  } else {
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      Store(y + i, Load(w, i) * Rounded<uint16_t>(Load(x, i) * scale));
    }
  }
}

FLOWMESH_EVERY_CPU void NormRows(const uint16_t* x, const uint16_t* w, uint16_t* y, int64_t width,
                                 float eps, NormWeight form, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) NormRow(x + r * width, w, y + r * width, width, eps, form);
}

// With n = x * scale and y = n * w: dw += dy * n, and dx = scale * (dy * w - n * mean(dy * w * n)).
FLOWMESH_INLINE void NormRowBackward(const uint16_t* x, const uint16_t* w, const uint16_t* dy,
                                     uint16_t* dx, float* dw, int64_t width, float eps, float one) {
  float squares = 0, along = 0;
#pragma omp simd reduction(+ : squares, along)
  for (int64_t i = 0; i < width; ++i) {
    squares += Load(x, i) * Load(x, i);
    along += Load(dy, i) * (Load(w, i) + one) * Load(x, i);
  }
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(width) + eps);
  along *= scale / static_cast<float>(width);
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float normed = Load(x, i) * scale;
    Store(dx + i, (Load(dy, i) * (Load(w, i) + one) - normed * along) * scale);
    dw[i] += Load(dy, i) * normed;
  }
}

FLOWMESH_EVERY_CPU void NormRowsBackward(const uint16_t* x, const uint16_t* w, const uint16_t* dy,
                                         uint16_t* dx, float* dw, int64_t width, float eps,
                                         float one, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    NormRowBackward(x + r * width, w, dy + r * width, dx + r * width, dw, width, eps, one);
  }
}

template <typename T>
FLOWMESH_INLINE void RotateRow(const T* x, const T* cos, const T* sin, T* y, int64_t half) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = Load(x, i), b = Load(x, i + half);
    Store(y + i, Rounded<T>(a * Load(cos, i)) - Rounded<T>(b * Load(sin, i)));
    Store(y + i + half, Rounded<T>(b * Load(cos, i + half)) + Rounded<T>(a * Load(sin, i + half)));
  }
}

// Rows begin..end-1 of [tokens * heads, 2 * half].
FLOWMESH_EVERY_CPU void RotateRows(const float* x, const float* cos, const float* sin, float* y,
                                   int64_t heads, int64_t half, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t angles = r / heads * 2 * half;
    RotateRow(x + r * 2 * half, cos + angles, sin + angles, y + r * 2 * half, half);
  }
}
FLOWMESH_EVERY_CPU void RotateRows(const uint16_t* x, const uint16_t* cos, const uint16_t* sin,
                                   uint16_t* y, int64_t heads, int64_t half, int64_t begin,
                                   int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const int64_t angles = r / heads * 2 * half;
    RotateRow(x + r * 2 * half, cos + angles, sin + angles, y + r * 2 * half, half);
  }
}

bool IsOnePass(const at::Tensor& x, const at::Tensor& other) {
  const at::ScalarType dtype = x.scalar_type();
  return x.is_cpu() && dtype == other.scalar_type() &&
         (dtype == at::kFloat || dtype == at::kBFloat16);
}

const uint16_t* Bits(const at::Tensor& tensor) {
  return static_cast<const uint16_t*>(tensor.const_data_ptr());
}

}  // namespace

// Not in float32: there the order of the sum shows, and libtorch's is the reference's.
bool IsOnePassNorm(const at::Tensor& x, const at::Tensor& weight) {
  return IsOnePass(x, weight) && x.scalar_type() == at::kBFloat16;
}

RmsNormGradients RmsNormBackward(const at::Tensor& x, const at::Tensor& weight,
                                 const at::Tensor& y_gradient, double eps, NormWeight form) {
  const at::Tensor rows = x.contiguous(), w = weight.contiguous(), dy = y_gradient.contiguous();
  const int64_t width = x.size(-1), count = x.numel() / width;
  // Each piece has a sum of its own, and they are added in order: always the same result.
  const int64_t pieces = std::clamp<int64_t>(x.numel() / kGrain, 1, at::get_num_threads());
  const int64_t piece = (count + pieces - 1) / pieces;
  const at::Tensor sums = at::zeros({pieces, width}, x.options().dtype(at::kFloat));
  const at::Tensor x_gradient = at::empty_like(rows);
  const auto *in = Bits(rows), *given = Bits(dy);
  auto* out = static_cast<uint16_t*>(x_gradient.mutable_data_ptr());
  float* sum = sums.mutable_data_ptr<float>();
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      NormRowsBackward(in, Bits(w), given, out, sum + i * width, width, static_cast<float>(eps),
                       form == NormWeight::kOnePlus ? 1.0f : 0.0f, i * piece,
                       std::min(count, (i + 1) * piece));
    }
  });
  return {x_gradient, sums.sum(0)};
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, NormWeight form) {
  if (WantsGradient({x, weight})) return TrainedRmsNorm(x, weight, eps, form);
  if (!IsOnePassNorm(x, weight)) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
    if (form == NormWeight::kOnePlus) {
      return (normed * (weight.to(at::kFloat) + 1)).to(x.scalar_type());
    }
    return weight * normed.to(x.scalar_type());
  }
  const at::Tensor rows = x.contiguous(), w = weight.contiguous();
  at::Tensor y = at::empty_like(rows);
  const auto* in = Bits(rows);
  auto* out = static_cast<uint16_t*>(y.mutable_data_ptr());
  const int64_t width = x.size(-1);
  at::parallel_for(0, x.numel() / width, kGrain / width + 1, [&](int64_t begin, int64_t end) {
    NormRows(in, Bits(w), out, width, static_cast<float>(eps), form, begin, end);
  });
  return y;
}

at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  if (WantsGradient({x})) return TrainedRotate(x, cos, sin);
  if (!IsOnePass(x, cos)) {
    const auto halves = x.chunk(2, -1);
    return x * cos + at::cat({halves[1].neg(), halves[0]}, -1) * sin;
  }
  const at::Tensor rows = x.contiguous(), c = cos.contiguous(), s = sin.contiguous();
  at::Tensor y = at::empty_like(rows);
  const int64_t heads = x.size(1), width = x.size(2);
  at::parallel_for(0, x.size(0) * heads, kGrain / width + 1, [&](int64_t begin, int64_t end) {
    if (x.scalar_type() == at::kBFloat16) {
      RotateRows(Bits(rows), Bits(c), Bits(s), static_cast<uint16_t*>(y.mutable_data_ptr()), heads,
                 width / 2, begin, end);
    } else {
      RotateRows(rows.const_data_ptr<float>(), c.const_data_ptr<float>(), s.const_data_ptr<float>(),
                 y.mutable_data_ptr<float>(), heads, width / 2, begin, end);
    }
  });
  return y;
}

}  // namespace flowmesh::kernels
