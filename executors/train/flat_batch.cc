#include "executors/train/flat_batch.h"

#include <ATen/ops/tensor.h>

namespace flowmesh::train {

at::Tensor IndexTensor(const std::vector<int64_t>& values, at::Device device) {
  return at::tensor(values, at::TensorOptions(at::kLong)).to(device);
}

FlatBatch MakeFlatBatch(std::span<const Ids* const> sequences, at::Device device) {
  FlatBatch batch;
  std::vector<int64_t> ids, positions, lengths;
  for (const Ids* sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence->size());
    batch.lengths.push_back(length);
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back((*sequence)[static_cast<size_t>(i)]);
      positions.push_back(i);
      lengths.push_back(length);
    }
  }
  batch.tokens = static_cast<int64_t>(ids.size());
  batch.input.token_ids = IndexTensor(ids, device);
  batch.input.positions = IndexTensor(positions, device);
  batch.input.lengths = IndexTensor(lengths, device);
  return batch;
}

}  // namespace flowmesh::train
