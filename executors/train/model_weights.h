// A decoder's weights as a training sees them.
#pragma once

#include <string>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

// All of them, for full training. Names are those of the first stored tensor of each.
std::vector<TrainedTensor> AllWeights(const model::Decoder& model);

// The layer that a stored name belongs to (`model.layers.3.mlp...` is 3), or -1.
int LayerOfName(const std::string& name);

}  // namespace flowmesh::train
