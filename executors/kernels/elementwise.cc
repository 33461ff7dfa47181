#include "executors/kernels/elementwise.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
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

template <typename W>
FLOWMESH_INLINE void NormRow(const uint16_t* x, const W* w, uint16_t* y, int64_t width, float eps,
                             NormWeight form) {
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
FLOWMESH_EVERY_CPU void NormRows(const uint16_t* x, const float* w, uint16_t* y, int64_t width,
                                 float eps, NormWeight form, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) NormRow(x + r * width, w, y + r * width, width, eps, form);
}

// With n = x * scale and y = n * w: dw += dy * n, and dx = scale * (dy * w - n * mean(dy * w * n)).
template <typename W>
FLOWMESH_INLINE void NormRowBackward(const uint16_t* x, const W* w, const uint16_t* dy,
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
FLOWMESH_EVERY_CPU void NormRowsBackward(const uint16_t* x, const float* w, const uint16_t* dy,
                                         uint16_t* dx, float* dw, int64_t width, float eps,
                                         float one, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    NormRowBackward(x + r * width, w, dy + r * width, dx + r * width, dw, width, eps, one);
  }
}

// The gate's value at x and its slope there.
struct GateAt {
  float value, slope;
};

// silu(x) = x s with s = 1 / (1 + e^-x); its slope is s (1 + x (1 - s)).
FLOWMESH_INLINE GateAt SiluAt(float x) {
  const float near = Exp(-std::abs(x)), e = std::abs(x) > 87.0f ? 0.0f : near;
  const float s = (x < 0 ? e : 1.0f) / (1.0f + e);
  return {x * s, s * (1.0f + x * (1.0f - s))};
}

// gelu(x) = x h with h = (1 + t) / 2, t = tanh(u) and u = sqrt(2/π) (x + 0.044715 x³) (Hendrycks
// and Gimpel); its slope is h + x (1 - t²) u' / 2.
FLOWMESH_INLINE GateAt GeluTanhAt(float x) {
  constexpr float kRoot = 0.7978845608f, kCubic = 0.044715f;
  const float u = kRoot * (x + kCubic * x * x * x);
  const float e = Exp(-2.0f * std::abs(u));
  const float t = std::copysign((1.0f - e) / (1.0f + e), u);
  const float h = 0.5f * (1.0f + t);
  return {x * h, h + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * x * x)};
}

// Rows of bfloat16 and how far they are apart.
template <typename Pointer>
struct Matrix {
  Pointer data;
  int64_t stride;
  Pointer row(int64_t r) const { return data + r * stride; }
};
using Input = Matrix<const uint16_t*>;
using Output = Matrix<uint16_t*>;

template <GateAt (*At)(float)>
FLOWMESH_INLINE void GateRow(const uint16_t* gate, const uint16_t* up, uint16_t* y, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    Store(y + i, Rounded<uint16_t>(At(Load(gate, i)).value) * Load(up, i));
  }
}

// With a = gate(g) and y = a u: du = dy a, and dg = dy u a'.
template <GateAt (*At)(float)>
FLOWMESH_INLINE void GateRowBackward(const uint16_t* gate, const uint16_t* up, const uint16_t* dy,
                                     uint16_t* dgate, uint16_t* dup, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const GateAt at = At(Load(gate, i));
    Store(dup + i, Load(dy, i) * Rounded<uint16_t>(at.value));
    Store(dgate + i, Rounded<uint16_t>(Load(dy, i) * Load(up, i)) * at.slope);
  }
}

FLOWMESH_EVERY_CPU void GateRows(Input gate, Input up, Output y, int64_t width, Gate form,
                                 int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    if (form == Gate::kSilu) {
      GateRow<SiluAt>(gate.row(r), up.row(r), y.row(r), width);
    } else {
      GateRow<GeluTanhAt>(gate.row(r), up.row(r), y.row(r), width);
    }
  }
}

FLOWMESH_EVERY_CPU void GateRowsBackward(Input gate, Input up, Input dy, Output dgate, Output dup,
                                         int64_t width, Gate form, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    if (form == Gate::kSilu) {
      GateRowBackward<SiluAt>(gate.row(r), up.row(r), dy.row(r), dgate.row(r), dup.row(r), width);
    } else {
      GateRowBackward<GeluTanhAt>(gate.row(r), up.row(r), dy.row(r), dgate.row(r), dup.row(r),
                                  width);
    }
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

// f(data) of a tensor in bfloat16 or float32.
template <typename F>
void WithNumbers(const at::Tensor& tensor, const F& f) {
  if (tensor.scalar_type() == at::kFloat) {
    f(tensor.const_data_ptr<float>());
  } else {
    f(Bits(tensor));
  }
}

Input RowsOf(const at::Tensor& tensor) { return {Bits(tensor), tensor.stride(0)}; }
Output RowsInto(const at::Tensor& tensor) {
  return {static_cast<uint16_t*>(tensor.mutable_data_ptr()), tensor.stride(0)};
}

// The tensor, or a copy whose rows are without gaps.
at::Tensor WithWholeRows(const at::Tensor& tensor) {
  return tensor.stride(1) == 1 ? tensor : tensor.contiguous();
}

}  // namespace

// Not in float32: there the order of the sum shows, and libtorch's is the reference's.
bool IsOnePassNorm(const at::Tensor& x, const at::Tensor& weight, NormWeight form) {
  return x.is_cpu() && x.scalar_type() == at::kBFloat16 &&
         (weight.scalar_type() == at::kBFloat16 ||
          (weight.scalar_type() == at::kFloat && form == NormWeight::kOnePlus));
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
      WithNumbers(w, [&](const auto* weights) {
        NormRowsBackward(in, weights, given, out, sum + i * width, width, static_cast<float>(eps),
                         form == NormWeight::kOnePlus ? 1.0f : 0.0f, i * piece,
                         std::min(count, (i + 1) * piece));
      });
    }
  });
  return {x_gradient, sums.sum(0)};
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, NormWeight form) {
  if (WantsGradient({x, weight})) return TrainedRmsNorm(x, weight, eps, form);
  if (!IsOnePassNorm(x, weight, form)) {
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
    WithNumbers(w, [&](const auto* weights) {
      NormRows(in, weights, out, width, static_cast<float>(eps), form, begin, end);
    });
  });
  return y;
}

bool IsOnePassGate(const at::Tensor& gate, const at::Tensor& up) {
  return IsOnePass(gate, up) && gate.scalar_type() == at::kBFloat16 && gate.dim() == 2;
}

at::Tensor Gated(const at::Tensor& gate, const at::Tensor& up, Gate form) {
  if (!IsOnePassGate(gate, up)) {
    return (form == Gate::kSilu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
  }
  if (WantsGradient({gate, up})) return TrainedGated(gate, up, form);
  const at::Tensor g = WithWholeRows(gate), u = WithWholeRows(up);
  const int64_t width = g.size(1);
  const at::Tensor y = at::empty(g.sizes(), g.options());
  const Output out = RowsInto(y);
  at::parallel_for(0, g.size(0), kGrain / width + 1, [&](int64_t begin, int64_t end) {
    GateRows(RowsOf(g), RowsOf(u), out, width, form, begin, end);
  });
  return y;
}

GatedGradients GatedBackward(const at::Tensor& gate, const at::Tensor& up,
                             const at::Tensor& y_gradient, Gate form) {
  const at::Tensor g = WithWholeRows(gate), u = WithWholeRows(up), dy = WithWholeRows(y_gradient);
  const int64_t width = g.size(1);
  const at::Tensor both = at::empty({g.size(0), 2 * width}, g.options());
  const GatedGradients result = {both.narrow(1, 0, width), both.narrow(1, width, width)};
  at::parallel_for(0, g.size(0), kGrain / width + 1, [&](int64_t begin, int64_t end) {
    GateRowsBackward(RowsOf(g), RowsOf(u), RowsOf(dy), RowsInto(result.gate), RowsInto(result.up),
                     width, form, begin, end);
  });
  return result;
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
