// PPO's value head: one linear layer from the policy's last hidden state, after the final norm, to
// a number (TASKS.md 4.7). It shares the policy's body, so one forward pass serves both.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

struct ValueHead {
  at::Tensor weight;  // [1, hidden] float32
  at::Tensor bias;    // [1] float32

  // Weight and bias uniform in +-1/sqrt(hidden_size), by a generator of their own; float32.
  static ValueHead Random(int64_t hidden_size, uint64_t seed, at::Device device);

  // hidden: [rows, hidden] -> [rows] float32, computed in float32 whatever the policy's dtype is.
  at::Tensor Values(const at::Tensor& hidden) const;
};

// All weights of the policy and those of its value head, as `value_head.weight` and
// `value_head.bias`.
std::vector<TrainedTensor> PolicyWeights(const model::Decoder& policy, ValueHead& head);

}  // namespace flowmesh::train
