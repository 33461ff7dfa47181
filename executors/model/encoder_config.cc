#include "executors/model/encoder_config.h"

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::model {
namespace {

// Bounds that no real model passes, so that a corrupt file cannot ask for absurd amounts.
constexpr int64_t kMaxSize = 1 << 24;
constexpr int64_t kMaxLayers = 4096;

const std::map<std::string, EncoderFamily>& Families() {
  static const auto& families =
      *new std::map<std::string, EncoderFamily>{{"bert", EncoderFamily::kBert},
                                                {"roberta", EncoderFamily::kRoberta},
                                                {"xlm-roberta", EncoderFamily::kRoberta},
                                                {"distilbert", EncoderFamily::kDistilBert}};
  return families;
}

absl::StatusOr<EncoderConfig> ParseDistilBert(const Field& root, EncoderConfig c) {
  ASSIGN_OR_RETURN(c.hidden_size, root["dim"].IntOr(768, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.intermediate_size, root["hidden_dim"].IntOr(3072, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.num_layers, root["n_layers"].IntOr(6, 1, kMaxLayers));
  ASSIGN_OR_RETURN(c.num_heads, root["n_heads"].IntOr(12, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.activation, ParseActivation(root["activation"], Activation::kGelu));
  return c;
}

absl::StatusOr<EncoderConfig> ParseBert(const Field& root, EncoderConfig c) {
  ASSIGN_OR_RETURN(c.hidden_size, root["hidden_size"].IntOr(768, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.intermediate_size, root["intermediate_size"].IntOr(3072, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.num_layers, root["num_hidden_layers"].IntOr(12, 1, kMaxLayers));
  ASSIGN_OR_RETURN(c.num_heads, root["num_attention_heads"].IntOr(12, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.types, root["type_vocab_size"].IntOr(2, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.activation, ParseActivation(root["hidden_act"], Activation::kGelu));
  ASSIGN_OR_RETURN(c.norm_eps, root["layer_norm_eps"].NumberOr(1e-12, {.above = 0}));
  ASSIGN_OR_RETURN(const std::string positions,
                   root["position_embedding_type"].StringOr("absolute"));
  if (positions != "absolute") return root["position_embedding_type"].Expected("absolute");
  return c;
}

// `id2label`'s keys are numbers in text, `label2id`'s values numbers.
absl::StatusOr<std::vector<std::string>> InOrder(const Field& field,
                                                 const std::map<int64_t, std::string>& labels) {
  std::vector<std::string> ordered;
  for (const auto& [index, name] : labels) {
    if (index != static_cast<int64_t>(ordered.size())) break;
    ordered.push_back(name);
  }
  if (ordered.size() != labels.size() || ordered.size() != field.json().size()) {
    return field.Error("expected the indices 0 to n - 1, each once");
  }
  return ordered;
}

}  // namespace

std::string KnownEncoderTypes() {
  return absl::StrJoin(Families(), ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.first);
  });
}

bool IsEncoderType(const std::string& model_type) { return Families().contains(model_type); }

absl::StatusOr<EncoderConfig> ParseEncoderConfig(const Field& root) {
  RETURN_IF_ERROR(root.CheckMap());
  ASSIGN_OR_RETURN(const std::string model_type, root["model_type"].NonEmptyString());
  const auto it = Families().find(model_type);
  if (it == Families().end()) {
    return root["model_type"].Error(
        absl::StrCat("\"", model_type, "\" is no supported encoder; known: ", KnownEncoderTypes()));
  }
  EncoderConfig c;
  c.family = it->second;
  const bool is_roberta = c.family == EncoderFamily::kRoberta;
  ASSIGN_OR_RETURN(c.vocab_size,
                   root["vocab_size"].IntOr(model_type == "roberta" ? 50265 : 30522, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.positions, root["max_position_embeddings"].IntOr(512, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.pad_id,
                   root["pad_token_id"].IntOr(is_roberta ? 1 : 0, 0, c.positions + c.vocab_size));
  auto config = c.family == EncoderFamily::kDistilBert ? ParseDistilBert(root, std::move(c))
                                                       : ParseBert(root, std::move(c));
  RETURN_IF_ERROR(config.status());
  if (config->hidden_size % config->num_heads != 0) {
    return root.FirstOf({"num_attention_heads", "n_heads"})
        .Expected(absl::StrCat("a divisor of the hidden size ", config->hidden_size));
  }
  if (is_roberta && config->positions <= config->pad_id + 1) {
    return root["max_position_embeddings"].Expected(
        absl::StrCat("more than pad_token_id + 1, which is ", config->pad_id + 1));
  }
  return config;
}

absl::StatusOr<std::vector<std::string>> ParseLabels(const Field& root) {
  std::map<int64_t, std::string> labels;
  const Field by_index = root["id2label"], by_name = root["label2id"];
  RETURN_IF_ERROR(by_index.CheckMap());
  RETURN_IF_ERROR(by_name.CheckMap());
  if (by_index.present()) {
    for (const auto& [key, value] : by_index.json().items()) {
      int64_t index = 0;
      if (!absl::SimpleAtoi(key, &index)) return by_index.Error("expected numbers as keys");
      ASSIGN_OR_RETURN(labels[index], by_index[key].String());
    }
    return InOrder(by_index, labels);
  }
  if (!by_name.present()) return std::vector<std::string>();
  for (const auto& [key, value] : by_name.json().items()) {
    ASSIGN_OR_RETURN(const int64_t index, by_name[key].Int());
    labels[index] = key;
  }
  return InOrder(by_name, labels);
}

}  // namespace flowmesh::model
