// Texts to vectors as sentence-transformers makes them (TASKS.md 5.2): an encoder, a pooling of its
// tokens' vectors, and what follows.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/encoder.h"
#include "executors/model/sentence_config.h"

namespace flowmesh::model {

// In float32. Not thread-safe.
class SentenceEncoder {
 public:
  // A folder in sentence-transformers' layout, or one of a bare encoder. Errors as of LoadEncoder
  // and ReadSentenceConfig.
  static absl::StatusOr<std::unique_ptr<SentenceEncoder>> Load(const std::filesystem::path& folder,
                                                               at::Device device = at::kCPU);

  // One row for each text, on the CPU: [texts, dimension]. A text that is too long loses its end;
  // one without a token is all zeros. `on_progress` gets how many are done and says whether to go
  // on. Cancelled: it said no. Throws c10::Error (out of memory).
  absl::StatusOr<at::Tensor> Embed(const std::vector<std::string>& texts,
                                   const std::function<bool(size_t done)>& on_progress) const;

  int64_t dimension() const { return dimension_; }
  int64_t max_tokens() const { return max_tokens_; }  // of a text, special tokens included
  const text::Tokenizer& tokenizer() const { return *encoder_.tokenizer; }
  const std::vector<std::string>& warnings() const { return encoder_.warnings; }

 private:
  struct Dense {
    at::Tensor weight, bias;  // [out, in], [out] or undefined
  };

  SentenceEncoder(SentenceConfig config, LoadedEncoder encoder);

  absl::Status LoadDense(at::Device device);
  std::vector<text::TokenId> Tokenize(const std::string& text) const;
  // Adds texts of no meaning, so that large batches come in few sizes.
  void FillUp(TokenRows& batch, size_t tokens) const;
  at::Tensor EmbedRows(const TokenRows& rows) const;  // [rows, dimension]

  const SentenceConfig config_;
  const LoadedEncoder encoder_;
  std::vector<Dense> dense_;  // of the steps, in their order
  int64_t dimension_ = 0;
  int64_t max_tokens_ = 0;
};

}  // namespace flowmesh::model
