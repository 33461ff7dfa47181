// Matrix products of model layers. Decoding multiplies a few rows by a large weight matrix: that is
// bound by reading the weights, and libtorch's products leave half of the memory bandwidth unused
// there. For those shapes on the CPU this has kernels of its own; everything else is oneDNN's or
// at::linear.
#pragma once

#include <ATen/core/Tensor.h>

namespace flowmesh::kernels {

// x: [rows, in], weight: [out, in], bias: [out] or undefined; x and weight of one dtype. Result:
// [rows, out]. Sums are kept in float32 and rounded once to the dtype. Differentiable
// (gradients.h). A row's result does not depend on the number of rows as long as rows stay within
// one kernel.
at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace flowmesh::kernels
