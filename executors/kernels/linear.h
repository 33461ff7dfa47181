// Matrix products for model layers.
#pragma once

#include <ATen/core/Tensor.h>

namespace flowmesh::kernels {

// x: [rows, in], weight: [out, in], bias: [out] or undefined. Result: [rows, out] in x's dtype.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace flowmesh::kernels
