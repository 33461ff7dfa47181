#include "executors/train/model_weights.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace flowmesh::train {

int LayerOfName(const std::string& name) {
  for (const absl::string_view part : absl::StrSplit(name, '.')) {
    int index = 0;
    if (absl::SimpleAtoi(part, &index)) return index;
  }
  return -1;
}

std::vector<TrainedTensor> AllWeights(const model::Decoder& model) {
  std::vector<TrainedTensor> tensors;
  for (const model::Parameter& parameter : model.parameters().all()) {
    const std::string& name = parameter.parts[0].name;
    tensors.push_back({name, parameter.tensor, LayerOfName(name), /*is_wide=*/parameter.is_norm});
  }
  return tensors;
}

}  // namespace flowmesh::train
