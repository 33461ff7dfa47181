// The kernels of this folder where gradients are wanted. They keep no more for the backward pass
// than they must, and add the gradients of weights to `weight.grad()` in place instead of handing
// them on: a trainer lays all gradients out in one buffer, and nothing as large as a vocabulary is
// made besides. A weight without a gradient yet gets one of zeros.
#pragma once

#include <ATen/core/Tensor.h>

#include "executors/kernels/elementwise.h"

namespace flowmesh::kernels {

// Whether a gradient is to flow into any of these; undefined tensors are of no account.
bool WantsGradient(std::initializer_list<at::Tensor> tensors);

// `weight.grad()`, made of zeros where there is none: same shape, dtype and device.
at::Tensor& GradientOf(const at::Tensor& weight);

// Adds the gradient of a product's weight: y_gradient [rows, out] turned, times x [rows, in].
void AddProduct(const at::Tensor& y_gradient, const at::Tensor& x, const at::Tensor& weight);

// As kernels::Linear; x may have any number of leading dimensions.
at::Tensor TrainedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// Rows of weight [rows, width] by ids [tokens]: [tokens, width] of `dtype`. A gradient of the
// weight that is sparse stays so and gets the rows that were looked up. What a row gets from
// several tokens is summed in float32.
at::Tensor TrainedEmbedding(const at::Tensor& weight, const at::Tensor& ids, at::ScalarType dtype);

// As kernels::RmsNorm.
at::Tensor TrainedRmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps,
                          NormWeight form);

// As kernels::Gated where IsOnePassGate.
at::Tensor TrainedGated(const at::Tensor& gate, const at::Tensor& up, Gate form);

// As kernels::Rotate; cos and sin are constants whose second half repeats the first.
at::Tensor TrainedRotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace flowmesh::kernels
