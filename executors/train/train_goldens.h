// For tests: the goldens of tests/goldens/train, and a model to train.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "executors/model/causal_lm.h"
#include "executors/model/decoder.h"
#include "executors/train/trainer.h"

namespace flowmesh::train {

std::filesystem::path TrainGolden(std::string_view name);
Json ReadTrainGolden(std::string_view name);

// The tiny model of tests/goldens/models/<family>, its weights in float32: to be trained in
// `dtype`.
std::unique_ptr<model::Decoder> LoadTinyModel(const std::string& family,
                                              at::ScalarType dtype = at::kFloat,
                                              bool autocast = true);
// The same, loaded as `options` say; the device is the test's.
std::unique_ptr<model::Decoder> LoadTinyModel(const std::string& family,
                                              model::LoadOptions options);
std::unique_ptr<text::Tokenizer> LoadTinyTokenizer(const std::string& family);

// A step of one pass over these rows, up to the optimiser: gradients are in the weights' shards.
absl::StatusOr<PassReport> RunPass(Recipe& recipe, const std::vector<int64_t>& rows,
                                   TrainedWeights& weights, parallel::ProcessGroup& group);

// Those of a single rank, by name; none where they cannot be had.
std::map<std::string, at::Tensor> Gradients(TrainedWeights& weights);

// What a golden's `training` block asks of the trainer, logging every step.
TrainerOptions OptionsOf(const Json& training, int64_t rows);

// Callbacks that keep nothing and stop nothing.
TrainerCallbacks QuietCallbacks();

}  // namespace flowmesh::train
