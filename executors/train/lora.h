// Adapters on a model whose own weights stay as they are (TASKS.md 4.5).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/adapter.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

// A fresh adapter for the model: A uniform in +-1/sqrt(in) by a generator of that seed, B zero.
// Errors as TargetModules.
absl::StatusOr<model::Adapter> MakeAdapter(const model::Decoder& model,
                                           const model::LoraConfig& config, uint64_t seed);

// InvalidArgument: an adapter that can be applied and not trained further, since it has modules
// whole or adapts the output head.
absl::Status CheckTrainable(const model::Adapter& adapter);

// Puts the adapter on the model, with its dropout, and gives what is to be trained: its matrices
// under PEFT's keys and the biases that its configuration names. Call once for a model.
std::vector<TrainedTensor> TrainAdapter(const model::Adapter& adapter, model::Decoder& model);

// What adapter_model.safetensors holds, from trained tensors by name (TrainedWeights::Collect).
std::vector<model::NamedTensor> StoredAdapter(const model::Decoder& model,
                                              const model::LoraConfig& config,
                                              const std::map<std::string, at::Tensor>& trained);

}  // namespace flowmesh::train
