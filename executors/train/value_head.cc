#include "executors/train/value_head.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <cmath>

#include "executors/train/model_weights.h"

namespace flowmesh::train {

ValueHead ValueHead::Random(int64_t hidden_size, uint64_t seed, at::Device device) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const double bound = 1.0 / std::sqrt(static_cast<double>(hidden_size));
  const auto uniform = [&](at::IntArrayRef shape) {
    return at::empty(shape, at::TensorOptions(at::kFloat))
        .uniform_(-bound, bound, generator)
        .to(device);
  };
  ValueHead head;
  head.weight = uniform({1, hidden_size});
  head.bias = uniform({1});
  return head;
}

at::Tensor ValueHead::Values(const at::Tensor& hidden) const {
  return at::linear(hidden.to(at::kFloat), weight, bias).squeeze(1);
}

std::vector<TrainedTensor> PolicyWeights(const model::Decoder& policy, ValueHead& head) {
  std::vector<TrainedTensor> tensors = AllWeights(policy);
  tensors.push_back({"value_head.weight", &head.weight, -1, /*is_wide=*/true});
  tensors.push_back({"value_head.bias", &head.bias, -1, /*is_wide=*/true});
  return tensors;
}

}  // namespace flowmesh::train
