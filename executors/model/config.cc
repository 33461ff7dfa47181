#include "executors/model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::model {
namespace {

// Bounds that no real model passes, so that a corrupt file cannot ask for absurd amounts.
constexpr int64_t kMaxSize = 1 << 24;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxPositions = int64_t{1} << 40;

const std::map<std::string, Family>& Families() {
  static const auto& families = *new std::map<std::string, Family>{
      {"gpt2", Family::kGpt2},          {"llama", Family::kLlama},  {"mistral", Family::kMistral},
      {"qwen2", Family::kQwen2},        {"qwen3", Family::kQwen3},  {"gemma2", Family::kGemma2},
      {"gemma3_text", Family::kGemma3}, {"gemma3", Family::kGemma3}};
  return families;
}

bool IsGemma(Family family) { return family == Family::kGemma2 || family == Family::kGemma3; }

absl::StatusOr<c10::ScalarType> ParseDtype(const Field& root) {
  const Field field = root.FirstOf({"torch_dtype", "dtype"});
  if (!field.present()) return c10::ScalarType::Float;
  ASSIGN_OR_RETURN(const std::string name, field.String());
  if (name == "float32" || name == "float64") return c10::ScalarType::Float;
  if (name == "bfloat16") return c10::ScalarType::BFloat16;
  if (name == "float16") return c10::ScalarType::Half;
  return field.Expected("float32, bfloat16 or float16");
}

// The `rope_scaling` map, into `rope`.
absl::Status ParseRopeScaling(const Field& field, int64_t max_positions, RopeConfig* rope) {
  RETURN_IF_ERROR(field.CheckMap());
  const Field type_field = field.FirstOf({"rope_type", "type"});
  if (!field.present() || !type_field.present()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string type, type_field.String());
  if (type == "default") return absl::OkStatus();
  if (type == "linear") {
    rope->scaling = RopeConfig::Scaling::kLinear;
  } else if (type == "dynamic") {
    rope->scaling = RopeConfig::Scaling::kDynamic;
    rope->original_positions = max_positions;
  } else if (type == "llama3") {
    rope->scaling = RopeConfig::Scaling::kLlama3;
    ASSIGN_OR_RETURN(rope->low_freq_factor, field["low_freq_factor"].Number());
    ASSIGN_OR_RETURN(rope->high_freq_factor, field["high_freq_factor"].Number());
    if (!(rope->low_freq_factor > 0) || !(rope->high_freq_factor > rope->low_freq_factor)) {
      return field["high_freq_factor"].Expected("a number above low_freq_factor, both positive");
    }
    ASSIGN_OR_RETURN(rope->original_positions,
                     field["original_max_position_embeddings"].Int(1, kMaxPositions));
  } else {
    return type_field.Expected("default, linear, dynamic or llama3");
  }
  ASSIGN_OR_RETURN(rope->factor, field["factor"].Number());
  if (!(rope->factor >= 1)) return field["factor"].Expected("a number of at least 1");
  return absl::OkStatus();
}

// The windows that `layer_types` gives; its entries choose between `window` and none.
absl::StatusOr<std::vector<int64_t>> ParseLayerTypes(const Field& types, int64_t num_layers,
                                                     int64_t window) {
  RETURN_IF_ERROR(types.CheckList());
  if (static_cast<int64_t>(types.size()) != num_layers) {
    return types.Error(absl::StrCat("expected ", num_layers, " entries, got ", types.size()));
  }
  std::vector<int64_t> windows;
  for (size_t i = 0; i < types.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string type, types[i].String());
    if (type != "sliding_attention" && type != "full_attention") {
      return types[i].Expected("sliding_attention or full_attention");
    }
    windows.push_back(type == "sliding_attention" ? window : 0);
  }
  return windows;
}

// The sliding window of every layer.
absl::StatusOr<std::vector<int64_t>> ParseWindows(const Field& root, const ModelConfig& c) {
  const Field window_field = root["sliding_window"];
  std::vector<int64_t> windows(c.num_layers, 0);
  if (c.family == Family::kLlama || c.family == Family::kGpt2) return windows;
  // An explicit null means none; an absent key the default.
  const bool is_null = root.json().contains("sliding_window") && !window_field.present();
  ASSIGN_OR_RETURN(const int64_t window, window_field.IntOr(is_null ? 0 : 4096, 0));
  if (c.family == Family::kMistral) return std::vector<int64_t>(c.num_layers, window);
  if (!IsGemma(c.family)) {
    ASSIGN_OR_RETURN(const bool used, root["use_sliding_window"].BoolOr(false));
    if (!used || is_null) return windows;
  }
  if (root["layer_types"].present()) {
    return ParseLayerTypes(root["layer_types"], c.num_layers, window);
  }
  if (IsGemma(c.family)) {
    int64_t pattern = 2;
    if (c.family == Family::kGemma3) {
      const Field field = root.FirstOf({"sliding_window_pattern", "_sliding_window_pattern"});
      ASSIGN_OR_RETURN(pattern, field.IntOr(6, 1));
    }
    for (int64_t i = 0; i < c.num_layers; ++i) windows[i] = (i + 1) % pattern == 0 ? 0 : window;
  } else {
    ASSIGN_OR_RETURN(const int64_t first, root["max_window_layers"].IntOr(28, 0));
    for (int64_t i = first; i < c.num_layers; ++i) windows[i] = window;
  }
  return windows;
}

absl::StatusOr<ModelConfig> ParseGpt2(const Field& root, ModelConfig c) {
  ASSIGN_OR_RETURN(c.vocab_size, root["vocab_size"].IntOr(50257, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.hidden_size, root["n_embd"].IntOr(768, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.num_layers, root["n_layer"].IntOr(12, 1, kMaxLayers));
  ASSIGN_OR_RETURN(c.num_heads, root["n_head"].IntOr(12, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.max_positions, root["n_positions"].IntOr(1024, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.intermediate_size, root["n_inner"].IntOr(4 * c.hidden_size, 1, kMaxSize));
  ASSIGN_OR_RETURN(c.norm_eps, root["layer_norm_epsilon"].NumberOr(1e-5, {.above = 0}));
  ASSIGN_OR_RETURN(c.activation,
                   ParseActivation(root["activation_function"], Activation::kGeluTanh));
  ASSIGN_OR_RETURN(c.tie_word_embeddings, root["tie_word_embeddings"].BoolOr(true));
  ASSIGN_OR_RETURN(c.scale_by_layer, root["scale_attn_by_inverse_layer_idx"].BoolOr(false));
  ASSIGN_OR_RETURN(const bool scaled, root["scale_attn_weights"].BoolOr(true));
  ASSIGN_OR_RETURN(c.dropout.embedding,
                   root["embd_pdrop"].NumberOr(0.1, {.at_least = 0, .below = 1}));
  ASSIGN_OR_RETURN(c.dropout.attention,
                   root["attn_pdrop"].NumberOr(0.1, {.at_least = 0, .below = 1}));
  ASSIGN_OR_RETURN(c.dropout.residual,
                   root["resid_pdrop"].NumberOr(0.1, {.at_least = 0, .below = 1}));
  if (c.hidden_size % c.num_heads != 0) {
    return root["n_head"].Expected(absl::StrCat("a divisor of n_embd ", c.hidden_size));
  }
  c.num_kv_heads = c.num_heads;
  c.head_dim = c.hidden_size / c.num_heads;
  c.attention_scale = scaled ? 1.0f / std::sqrt(static_cast<float>(c.head_dim)) : 1.0f;
  c.windows.assign(c.num_layers, 0);
  c.qkv_bias = c.output_bias = c.mlp_bias = true;
  return c;
}

// What the configuration classes of Transformers assume of a key that is absent.
struct Defaults {
  int64_t vocab_size, hidden_size, intermediate_size, num_layers, num_heads, max_positions;
  int64_t num_kv_heads;  // 0: as many as heads
  int64_t head_dim;      // 0: hidden_size / num_heads
};

Defaults DefaultsOf(Family family) {
  switch (family) {
    case Family::kLlama:
    case Family::kGpt2:  // has a reader of its own
      return {32000, 4096, 11008, 32, 32, 2048, 0, 0};
    case Family::kMistral:
      return {32000, 4096, 14336, 32, 32, 131072, 8, 0};
    case Family::kQwen2:
      return {151936, 4096, 22016, 32, 32, 32768, 0, 0};
    case Family::kQwen3:
      return {151936, 4096, 22016, 32, 32, 32768, 0, 128};
    case Family::kGemma2:
      return {256000, 2304, 9216, 26, 8, 8192, 4, 256};
    case Family::kGemma3:
      return {262208, 2304, 9216, 26, 8, 131072, 4, 256};
  }
  return {};
}

// Sizes and head counts of the families that came after GPT-2.
absl::Status ParseSizes(const Field& root, ModelConfig* c) {
  const Defaults d = DefaultsOf(c->family);
  ASSIGN_OR_RETURN(c->vocab_size, root["vocab_size"].IntOr(d.vocab_size, 1, kMaxSize));
  ASSIGN_OR_RETURN(c->hidden_size, root["hidden_size"].IntOr(d.hidden_size, 1, kMaxSize));
  ASSIGN_OR_RETURN(c->intermediate_size,
                   root["intermediate_size"].IntOr(d.intermediate_size, 1, kMaxSize));
  ASSIGN_OR_RETURN(c->num_layers, root["num_hidden_layers"].IntOr(d.num_layers, 1, kMaxLayers));
  ASSIGN_OR_RETURN(c->num_heads, root["num_attention_heads"].IntOr(d.num_heads, 1, kMaxSize));
  ASSIGN_OR_RETURN(c->max_positions,
                   root["max_position_embeddings"].IntOr(d.max_positions, 1, kMaxPositions));
  const int64_t kv_heads = d.num_kv_heads == 0 ? c->num_heads : d.num_kv_heads;
  ASSIGN_OR_RETURN(c->num_kv_heads, root["num_key_value_heads"].IntOr(kv_heads, 1, kMaxSize));
  if (c->num_heads % c->num_kv_heads != 0) {
    return root["num_key_value_heads"].Expected(
        absl::StrCat("a divisor of num_attention_heads ", c->num_heads));
  }
  const int64_t head_dim = d.head_dim == 0 ? c->hidden_size / c->num_heads : d.head_dim;
  ASSIGN_OR_RETURN(c->head_dim, root["head_dim"].IntOr(head_dim, 1, kMaxSize));
  if (c->head_dim < 2 || c->head_dim % 2 != 0) {
    return root["head_dim"].Error(absl::StrCat("must be even, is ", c->head_dim));
  }
  return absl::OkStatus();
}

absl::Status ParseRope(const Field& root, ModelConfig* c) {
  const double theta = c->family == Family::kGemma3 ? 1e6 : 1e4;
  ASSIGN_OR_RETURN(c->rope.theta, root["rope_theta"].NumberOr(theta, {.above = 0}));
  RETURN_IF_ERROR(ParseRopeScaling(root["rope_scaling"], c->max_positions, &c->rope));
  if (c->rope.scaling == RopeConfig::Scaling::kDynamic) {
    c->max_positions = static_cast<int64_t>(static_cast<double>(c->max_positions) * c->rope.factor);
  }
  if (c->family == Family::kGemma3) {
    ASSIGN_OR_RETURN(c->local_rope.theta, root["rope_local_base_freq"].NumberOr(1e4, {.above = 0}));
  }
  return absl::OkStatus();
}

absl::Status ParseBiases(const Field& root, ModelConfig* c) {
  ASSIGN_OR_RETURN(const bool attention, root["attention_bias"].BoolOr(false));
  switch (c->family) {
    case Family::kQwen2:
      c->qkv_bias = true;
      return absl::OkStatus();
    case Family::kMistral:
      return absl::OkStatus();
    case Family::kLlama: {
      ASSIGN_OR_RETURN(c->mlp_bias, root["mlp_bias"].BoolOr(false));
      break;
    }
    default:
      break;
  }
  c->qkv_bias = c->output_bias = attention;
  return absl::OkStatus();
}

absl::Status ParseGemma(const Field& root, ModelConfig* c) {
  ASSIGN_OR_RETURN(const double scalar, root["query_pre_attn_scalar"].NumberOr(256, {.above = 0}));
  c->attention_scale = static_cast<float>(1.0 / std::sqrt(scalar));
  const bool capped = c->family == Family::kGemma2;
  const auto soft_cap = [&](std::string_view key, double fallback) -> absl::StatusOr<float> {
    // An explicit null means none; an absent key the default.
    if (root.json().contains(std::string(key)) && !root[key].present()) return 0.0f;
    ASSIGN_OR_RETURN(const double value, root[key].NumberOr(fallback, {.at_least = 0}));
    return static_cast<float>(value);
  };
  ASSIGN_OR_RETURN(c->attention_soft_cap, soft_cap("attn_logit_softcapping", capped ? 50 : 0));
  ASSIGN_OR_RETURN(c->logit_soft_cap, soft_cap("final_logit_softcapping", capped ? 30 : 0));
  ASSIGN_OR_RETURN(const bool bidirectional, root["use_bidirectional_attention"].BoolOr(false));
  if (bidirectional) return root["use_bidirectional_attention"].Error("is not supported");
  return absl::OkStatus();
}

}  // namespace

std::string KnownModelTypes() {
  return absl::StrJoin(Families(), ", ", [](std::string* out, const auto& entry) {
    absl::StrAppend(out, entry.first);
  });
}

bool IsDecoderType(const std::string& model_type) { return Families().contains(model_type); }

absl::StatusOr<Activation> ParseActivation(const Field& field, Activation fallback) {
  if (!field.present()) return fallback;
  ASSIGN_OR_RETURN(const std::string name, field.String());
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  return field.Expected("silu, gelu, gelu_new, gelu_pytorch_tanh or relu");
}

absl::StatusOr<std::vector<text::TokenId>> ParseEosIds(const Field& root) {
  constexpr int64_t kMaxId = std::numeric_limits<text::TokenId>::max();
  const Field field = root["eos_token_id"];
  std::vector<text::TokenId> ids;
  if (!field.present()) return ids;
  if (!field.json().is_array()) {
    ASSIGN_OR_RETURN(const int64_t id, field.Int(0, kMaxId));
    ids.push_back(static_cast<text::TokenId>(id));
    return ids;
  }
  for (size_t i = 0; i < field.size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t id, field[i].Int(0, kMaxId));
    ids.push_back(static_cast<text::TokenId>(id));
  }
  return ids;
}

absl::StatusOr<ModelConfig> ParseConfig(const Field& root) {
  RETURN_IF_ERROR(root.CheckMap());
  ASSIGN_OR_RETURN(const std::string model_type, root["model_type"].NonEmptyString());
  const auto it = Families().find(model_type);
  if (it == Families().end()) {
    return root["model_type"].Error(
        absl::StrCat("\"", model_type, "\" is not supported; known: ", KnownModelTypes()));
  }
  ModelConfig c;
  c.family = it->second;
  c.model_type = model_type;
  ASSIGN_OR_RETURN(c.dtype, ParseDtype(root));
  ASSIGN_OR_RETURN(c.eos_ids, ParseEosIds(root));
  if (c.family == Family::kGpt2) return ParseGpt2(root, std::move(c));

  // A multimodal checkpoint keeps the settings of its text part in a map of their own.
  const Field text = model_type == "gemma3" ? root["text_config"] : root;
  if (model_type == "gemma3") {
    if (!text.present()) return text.Expected("a map");
    RETURN_IF_ERROR(text.CheckMap());
    if (!root.FirstOf({"torch_dtype", "dtype"}).present()) {
      ASSIGN_OR_RETURN(c.dtype, ParseDtype(text));
    }
    ASSIGN_OR_RETURN(const std::vector<text::TokenId> ids, ParseEosIds(text));
    c.eos_ids.insert(c.eos_ids.end(), ids.begin(), ids.end());
  }
  RETURN_IF_ERROR(ParseSizes(text, &c));
  ASSIGN_OR_RETURN(c.norm_eps, text["rms_norm_eps"].NumberOr(1e-6, {.above = 0}));
  c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  ASSIGN_OR_RETURN(c.activation,
                   IsGemma(c.family)
                       ? ParseActivation(text["hidden_activation"], Activation::kGeluTanh)
                       : ParseActivation(text["hidden_act"], Activation::kSilu));
  ASSIGN_OR_RETURN(c.tie_word_embeddings, text["tie_word_embeddings"].BoolOr(IsGemma(c.family)));
  RETURN_IF_ERROR(ParseRope(text, &c));
  RETURN_IF_ERROR(ParseBiases(text, &c));
  if (IsGemma(c.family)) RETURN_IF_ERROR(ParseGemma(text, &c));
  ASSIGN_OR_RETURN(c.windows, ParseWindows(text, c));
  return c;
}

}  // namespace flowmesh::model
