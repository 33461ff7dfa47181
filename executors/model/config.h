// The shape of a decoder: what config.json, or the metadata of a GGUF file, says of it, with the
// defaults of its family (TASKS.md 5.1).
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/model/gguf.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::model {

enum class Family { kGpt2, kLlama, kMistral, kQwen2, kQwen3, kGemma2, kGemma3 };

enum class Activation { kSilu, kGelu, kGeluTanh, kRelu };

// Rotary frequencies.
struct RopeConfig {
  enum class Scaling { kNone, kLinear, kDynamic, kLlama3 };

  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;    // llama3
  double high_freq_factor = 4.0;   // llama3
  int64_t original_positions = 0;  // llama3: the original length; dynamic: max_position_embeddings
  std::vector<float>
      divisors;  // [head_dim / 2] of the frequencies (GGUF: rope_freqs); may be empty

  friend bool operator==(const RopeConfig&, const RopeConfig&) = default;
};

// Shares of elements that training leaves out, all 0 otherwise.
struct DropoutRates {
  double embedding = 0.0;
  double attention = 0.0;
  double residual = 0.0;

  friend bool operator==(const DropoutRates&, const DropoutRates&) = default;
};

struct ModelConfig {
  Family family = Family::kLlama;
  std::string model_type;  // as config.json says it, GGUF files included
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;
  double norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;     // on the q, k and v projections
  bool output_bias = false;  // on the attention's output projection
  bool mlp_bias = false;
  bool tie_word_embeddings = false;
  float attention_scale = 0.0f;  // factor on q·k
  bool scale_by_layer = false;   // gpt2: divide it by the layer's index + 1
  float attention_soft_cap = 0.0f;
  float logit_soft_cap = 0.0f;
  std::vector<int64_t> windows;  // [num_layers] sliding window of each layer, 0: none
  RopeConfig rope;
  RopeConfig local_rope;  // gemma3: of the layers with a window
  DropoutRates dropout;   // of training

  c10::ScalarType dtype = c10::ScalarType::Float;  // of the checkpoint
  std::vector<text::TokenId> eos_ids;

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// The `model_type`s that are implemented, for error texts: `gemma2, gemma3, ...`.
std::string KnownModelTypes();
bool IsDecoderType(const std::string& model_type);

// Reads a parsed config.json. InvalidArgument naming the key (without the file's name): a type that
// is not implemented, a missing or impossible value.
absl::StatusOr<ModelConfig> ParseConfig(const Field& root);

// The config.json that ParseConfig and Transformers read as this configuration, without
// `architectures`, the dtype, and ids of tokens that do not end a text. Unimplemented: biases that
// the family's class does not have, frequencies with divisors that are none of a llama3 scaling.
absl::StatusOr<Json> WriteConfig(const ModelConfig& config);

// The name of an activation, `fallback` when absent.
absl::StatusOr<Activation> ParseActivation(const Field& field, Activation fallback);

// `eos_token_id` of a config.json or generation_config.json: a number, a list or nothing.
absl::StatusOr<std::vector<text::TokenId>> ParseEosIds(const Field& root);

// The same from a GGUF file's metadata.
absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& file);

}  // namespace flowmesh::model
