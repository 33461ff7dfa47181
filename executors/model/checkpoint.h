// A model's files, opened and checked, their weights not read yet.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/causal_lm.h"
#include "executors/model/config.h"
#include "executors/model/decoder.h"
#include "executors/model/weight_source.h"

namespace flowmesh::model {

struct Checkpoint {
  std::filesystem::path path;      // the Hugging Face folder or the GGUF file
  std::unique_ptr<GgufFile> gguf;  // null for a folder
  ModelConfig config;
  std::unique_ptr<WeightSource> weights;  // may refer to `gguf`
};

// Errors as LoadModel, those of tensors excepted.
absl::StatusOr<Checkpoint> OpenCheckpoint(const std::filesystem::path& path);

// The dtype that `options` mean for this checkpoint.
at::ScalarType ChooseDtype(const Checkpoint& checkpoint, const LoadOptions& options);

// Builds the model and reads its weights. ResourceExhausted: not enough memory.
absl::StatusOr<std::unique_ptr<Decoder>> LoadDecoder(const Checkpoint& checkpoint,
                                                     const LoadOptions& options,
                                                     std::vector<std::string>* warnings);

}  // namespace flowmesh::model
