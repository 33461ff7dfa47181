// Sequence classifiers of any supported family (TASKS.md 5.2): an encoder with its head, or a
// decoder with a `score` matrix on its last token. On the CPU in float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/encoder.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::model {

// Not thread-safe.
class SequenceClassifier {
 public:
  virtual ~SequenceClassifier() = default;

  // Class logits of each row: [rows, classes]. Each row has 1 to max_tokens() ids, special tokens
  // included. Throws c10::Error (an id beyond the vocabulary, out of memory).
  virtual at::Tensor Logits(const TokenRows& rows) = 0;

  virtual int64_t max_tokens() const = 0;
};

struct LoadedClassifier {
  std::unique_ptr<SequenceClassifier> model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::vector<std::string> labels;  // one per class
  std::vector<std::string> warnings;
};

// Loads a Hugging Face folder. Errors as LoadModel; a model_type of neither kind lists all of them.
absl::StatusOr<LoadedClassifier> LoadSequenceClassifier(const std::filesystem::path& folder);

}  // namespace flowmesh::model
