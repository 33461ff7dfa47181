// Small steps between the matrix products, each as one pass on the CPU in bfloat16 (Rotate in
// float32 too): as chains of libtorch's operators they cost more in dispatch than in arithmetic
// when there are few tokens. Elsewhere they are those chains. Differentiable (gradients.h).
// Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

namespace flowmesh::kernels {

// How a root mean square norm applies its weight: kPlain rounds to the input's dtype, then
// multiplies by w; kOnePlus (Gemma) multiplies by 1 + w in float32, then rounds.
enum class NormWeight { kPlain, kOnePlus };

// x / sqrt(mean(x²) + eps), in float32, with the weight. x: [..., width], weight: [width], of x's
// dtype or float32. Result: x's shape and dtype, but that kPlain's product with a float32 weight is
// float32.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps, NormWeight form);

// Whether RmsNorm and its gradients are one pass for these: on the CPU, x and result in bfloat16.
bool IsOnePassNorm(const at::Tensor& x, const at::Tensor& weight, NormWeight form);

struct RmsNormGradients {
  at::Tensor x;       // as RmsNorm's x
  at::Tensor weight;  // [width] float32, the sum over all rows
};

// Of RmsNorm where IsOnePassNorm, from that of its result (y_gradient: x's shape and dtype).
RmsNormGradients RmsNormBackward(const at::Tensor& x, const at::Tensor& weight,
                                 const at::Tensor& y_gradient, double eps, NormWeight form);

// What a gated MLP lets through.
enum class Gate { kSilu, kGeluTanh };

// silu(gate) * up, or gelu(gate) * up by tanh's approximation; the gate and the product are rounded
// to the dtype. gate, up and result: [rows, width], of one dtype.
at::Tensor Gated(const at::Tensor& gate, const at::Tensor& up, Gate form);

// Whether Gated and its gradients are one pass for these: on the CPU, both in bfloat16.
bool IsOnePassGate(const at::Tensor& gate, const at::Tensor& up);

struct GatedGradients {
  at::Tensor gate, up;  // halves of one [rows, 2 * width]
};

// Of Gated where IsOnePassGate, from that of its result.
GatedGradients GatedBackward(const at::Tensor& gate, const at::Tensor& up,
                             const at::Tensor& y_gradient, Gate form);

// x * cos + rotate_half(x) * sin, where rotate_half gives (-second half, first half); products and
// sum are rounded to the dtype. x: [tokens, heads, head_dim]; cos, sin: [tokens, 1, head_dim], of
// x's dtype.
at::Tensor Rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace flowmesh::kernels
