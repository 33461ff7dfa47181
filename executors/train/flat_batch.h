// Rows of token ids as one flat batch for a forward pass, without padding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::train {

using Ids = std::vector<text::TokenId>;

struct FlatBatch {
  model::ForwardInput input;     // logit_rows is for the user to set
  std::vector<int64_t> lengths;  // of each sequence
  int64_t tokens = 0;
};

// The sequences one after the other; positions of each count from 0. None may be empty.
FlatBatch MakeFlatBatch(std::span<const Ids* const> sequences, at::Device device);

// int64 on `device`.
at::Tensor IndexTensor(const std::vector<int64_t>& values, at::Device device);

}  // namespace flowmesh::train
