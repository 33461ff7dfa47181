// An encoder of any supported family (TASKS.md 5.2): text embeddings and sequence classification.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/encoder_layers.h"
#include "executors/model/parameters.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::model {

using TokenRows = std::vector<std::vector<text::TokenId>>;

std::vector<int64_t> LengthsOf(const TokenRows& rows);

// Built without memory for its weights; Load gives them. In float32. Not thread-safe.
class Encoder {
 public:
  virtual ~Encoder() = default;

  // The last hidden states of all tokens of all rows, one row after another: [tokens, hidden]. Each
  // row has 1 to max_tokens() ids. Throws c10::Error (an id beyond the vocabulary, out of memory).
  at::Tensor Forward(const TokenRows& rows) const;

  // Class logits from each row's first hidden state: [rows, hidden] -> [rows, classes]. Only when
  // built with classes.
  virtual at::Tensor Classify(const at::Tensor& first) const = 0;

  virtual int64_t max_tokens() const { return config_.positions; }
  const EncoderConfig& config() const { return config_; }
  const ParameterList& parameters() const { return parameters_; }

 protected:
  Encoder(const EncoderConfig& config, const EncoderNames& names);

  // The places in the table of positions that a row's tokens take.
  virtual std::vector<int64_t> Positions(const std::vector<text::TokenId>& row) const;

  ParameterScope scope() { return ParameterScope(&parameters_); }

 private:
  const EncoderConfig config_;
  ParameterList parameters_;
  EncoderEmbeddings embeddings_;
  std::deque<EncoderLayer> layers_;
};

// One per family. `classes`: of the classification head; 0: none.
std::unique_ptr<Encoder> MakeBert(const EncoderConfig& config, int64_t classes);
std::unique_ptr<Encoder> MakeRoberta(const EncoderConfig& config, int64_t classes);
std::unique_ptr<Encoder> MakeDistilBert(const EncoderConfig& config, int64_t classes);

struct LoadedEncoder {
  std::unique_ptr<Encoder> model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::vector<std::string> labels;  // of the classes; empty without a head
  std::vector<std::string> warnings;
};

enum class EncoderHead { kNone, kClassification };

// Loads a Hugging Face folder. Labels as the configuration names them, else LABEL_0, LABEL_1, ...
// NotFound, InvalidArgument, ResourceExhausted: as LoadModel.
absl::StatusOr<LoadedEncoder> LoadEncoder(const std::filesystem::path& folder, EncoderHead head,
                                          at::Device device = at::kCPU);

}  // namespace flowmesh::model
