// The shape of an encoder: what config.json says of it, with the defaults of its family (TASKS.md
// 5.2), and the names of the classes of a sequence classifier.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/model/config.h"

namespace flowmesh::model {

enum class EncoderFamily { kBert, kRoberta, kDistilBert };

struct EncoderConfig {
  EncoderFamily family = EncoderFamily::kBert;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t positions = 0;  // rows of the table of positions
  int64_t types = 0;      // rows of the table of segment types; 0: there is none
  int64_t pad_id = 0;
  double norm_eps = 1e-12;
  Activation activation = Activation::kGelu;
};

// The `model_type`s that are implemented: `bert, distilbert, roberta, xlm-roberta`.
std::string KnownEncoderTypes();
bool IsEncoderType(const std::string& model_type);

// Reads a parsed config.json. InvalidArgument naming the key (without the file's name): a type that
// is not implemented, a missing or impossible value.
absl::StatusOr<EncoderConfig> ParseEncoderConfig(const Field& root);

// The classes by their index, from `id2label`, else `label2id`; empty when neither is there.
// InvalidArgument: indices that are not 0 to n - 1.
absl::StatusOr<std::vector<std::string>> ParseLabels(const Field& root);

}  // namespace flowmesh::model
