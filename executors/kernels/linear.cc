#include "executors/kernels/linear.h"

#include <ATen/ops/linear.h>

namespace flowmesh::kernels {

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return at::linear(x, weight, bias);
}

}  // namespace flowmesh::kernels
