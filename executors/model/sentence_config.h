// What a folder in sentence-transformers' layout says of itself (TASKS.md 5.2): the steps from a
// text to its vector.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::model {

// How the vectors of a text's tokens become one.
enum class Pooling { kCls, kMax, kMean, kMeanSqrtLength, kWeightedMean, kLastToken };

// A step behind the pooling.
struct SentenceStep {
  enum class Kind { kDense, kNormalize };
  enum class Activation { kIdentity, kTanh, kRelu, kGelu };

  Kind kind = Kind::kNormalize;
  // kDense: y = activation(W x + b), whose tensors `linear.weight` and `linear.bias` lie in
  // `folder`.
  std::filesystem::path folder;
  int64_t in = 0, out = 0;
  bool bias = true;
  Activation activation = Activation::kTanh;
};

struct SentenceConfig {
  std::filesystem::path encoder;  // the folder of the transformer
  std::optional<int64_t> max_seq_length;
  bool do_lower_case = false;
  std::vector<Pooling> pooling = {Pooling::kMean};  // their vectors stand side by side
  std::vector<SentenceStep> steps;
};

// Reads modules.json and the files that it names. A folder without it is an encoder whose vectors
// are the tokens' mean, normalised. InvalidArgument, naming file and key: malformed, a module of
// another type, or modules in an order other than transformer, pooling, others.
absl::StatusOr<SentenceConfig> ReadSentenceConfig(const std::filesystem::path& folder);

}  // namespace flowmesh::model
