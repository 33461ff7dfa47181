// What BERT and its relatives are made of: embeddings, and layers with the norm after each residual
// sum. The families differ in names only.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "executors/model/encoder_config.h"
#include "executors/model/layers.h"

namespace flowmesh::model {

// A family's names for its parts, dotted paths below the layer.
struct EncoderNames {
  std::string body;    // what the model stands below in a checkpoint with a head
  std::string layers;  // the list of layers
  std::string attention;
  std::vector<std::string> qkv;  // below `attention`
  std::string attention_output, attention_norm;
  std::string up, down, norm;
};

// BERT's, which RoBERTa has too.
EncoderNames BertNames(const std::string& body);

// Sequences of one length, one after another: their tokens are [begin, begin + count * length).
struct EqualRun {
  int64_t begin = 0, count = 0, length = 0;
};

// `lengths` as the fewest runs. What is sorted by length is computed in few large blocks.
std::vector<EqualRun> EqualRuns(const std::vector<int64_t>& lengths);

class EncoderEmbeddings : public Layer {
 public:
  EncoderEmbeddings(const ParameterScope& scope, const EncoderConfig& config);

  // ids, positions: [tokens] -> [tokens, hidden]. All tokens are of segment type 0.
  at::Tensor operator()(const at::Tensor& ids, const at::Tensor& positions) const;

 private:
  Embedding words_, positions_;
  std::optional<Embedding> types_;
  LayerNorm norm_;
};

class EncoderLayer : public Layer {
 public:
  EncoderLayer(const ParameterScope& scope, const EncoderConfig& config, const EncoderNames& names);

  // [tokens, hidden] -> [tokens, hidden]; the tokens of sequence i follow those of i - 1.
  at::Tensor operator()(const at::Tensor& x, const std::vector<int64_t>& lengths) const;

 private:
  const int64_t num_heads_;
  const Activation activation_;
  StackedLinear qkv_;
  Linear attention_output_;
  LayerNorm attention_norm_;
  Linear up_, down_;
  LayerNorm norm_;
};

}  // namespace flowmesh::model
