// A model's files, opened and checked, their weights not read yet.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/model/causal_lm.h"
#include "executors/model/config.h"
#include "executors/model/decoder.h"
#include "executors/model/weight_source.h"

namespace flowmesh::model {

struct Checkpoint {
  std::filesystem::path path;       // the Hugging Face folder or the GGUF file that describes it
  std::filesystem::path tokenizer;  // the folder or GGUF file whose tokenizer it has
  std::unique_ptr<GgufFile> gguf;   // null for a folder
  ModelConfig config;
  std::unique_ptr<WeightSource> weights;  // may refer to `gguf`
};

// Errors as LoadModel, those of tensors excepted.
absl::StatusOr<Checkpoint> OpenCheckpoint(const std::filesystem::path& path);

// What it does that encoders do too.

// A JSON file; errors name it.
absl::StatusOr<Json> ReadJsonFile(const std::filesystem::path& path);
// The file of a folder that holds the weights, or names the shards that do: safetensors, its index,
// or the folder's only GGUF file. NotFound: none. InvalidArgument: only files of other formats,
// which are named, or several GGUF files.
absl::StatusOr<std::filesystem::path> FindWeights(const std::filesystem::path& folder);
// A safetensors file, or an index by its ending.
absl::StatusOr<std::unique_ptr<Safetensors>> OpenSafetensors(const std::filesystem::path& file);

// LoadModel of what was opened. `prepare` (may be null) gets the decoder last: to put adapters on
// it.
absl::StatusOr<LoadedModel> LoadModel(const Checkpoint& checkpoint, const LoadOptions& options,
                                      const std::function<absl::Status(Decoder&)>& prepare);

// Errors as LoadModel's of tokenizers.
absl::StatusOr<std::unique_ptr<text::Tokenizer>> LoadTokenizer(const Checkpoint& checkpoint);

// What the GGUF file that holds the tokenizer says of it.
absl::StatusOr<text::GgufVocabulary> ReadTokenizerVocabulary(const Checkpoint& checkpoint);

// The dtype that `options` mean for this checkpoint. `capability`: the GPU's, as far as it is
// known.
at::ScalarType ChooseDtype(const Checkpoint& checkpoint, const LoadOptions& options,
                           std::optional<int> capability);

// Builds the model and reads its weights. ResourceExhausted: not enough memory.
absl::StatusOr<std::unique_ptr<Decoder>> LoadDecoder(const Checkpoint& checkpoint,
                                                     const LoadOptions& options,
                                                     std::vector<std::string>* warnings);

}  // namespace flowmesh::model
