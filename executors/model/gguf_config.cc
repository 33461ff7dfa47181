// A GGUF file's metadata as a ModelConfig.
#include <cmath>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/model/config.h"

namespace flowmesh::model {
namespace {

constexpr int64_t kMaxSize = 1 << 24;
constexpr int64_t kMaxLayers = 4096;

struct Architecture {
  Family family;
  const char* model_type;
};

const std::map<std::string, Architecture>& Architectures() {
  static const auto& architectures = *new std::map<std::string, Architecture>{
      {"gemma2", {Family::kGemma2, "gemma2"}}, {"gemma3", {Family::kGemma3, "gemma3_text"}},
      {"gpt2", {Family::kGpt2, "gpt2"}},       {"llama", {Family::kLlama, "llama"}},
      {"qwen2", {Family::kQwen2, "qwen2"}},    {"qwen3", {Family::kQwen3, "qwen3"}}};
  return architectures;
}

// The keys `<architecture>.<name>` of one file.
class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture)
      : file_(file), prefix_(std::move(architecture) + ".") {}

  std::string Path(std::string_view name) const { return absl::StrCat(prefix_, ToAbsl(name)); }
  bool Has(std::string_view name) const { return file_.Has(Path(name)); }

  absl::Status Error(std::string_view name, std::string_view text) const {
    return absl::InvalidArgumentError(
        absl::StrCat(file_.path().string(), ": ", Path(name), ": ", ToAbsl(text)));
  }
  absl::StatusOr<int64_t> Int(std::string_view name, int64_t max) const {
    ASSIGN_OR_RETURN(const int64_t value, file_.Int(Path(name)));
    if (value < 1 || value > max) {
      return Error(name, absl::StrCat("expected an integer from 1 to ", max, ", got ", value));
    }
    return value;
  }
  absl::StatusOr<int64_t> IntOr(std::string_view name, int64_t fallback, int64_t max) const {
    if (!Has(name)) return fallback;
    return Int(name, max);
  }
  absl::StatusOr<double> NumberOr(std::string_view name, double fallback) const {
    if (!Has(name)) return fallback;
    ASSIGN_OR_RETURN(const double value, file_.Number(Path(name)));
    if (!(value > 0) || !std::isfinite(value)) {
      return Error(name, absl::StrCat("expected a positive number, got ", value));
    }
    return value;
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;
};

absl::Status ReadSizes(const GgufFile& file, const Keys& keys, ModelConfig* c) {
  ASSIGN_OR_RETURN(c->hidden_size, keys.Int("embedding_length", kMaxSize));
  ASSIGN_OR_RETURN(c->intermediate_size, keys.Int("feed_forward_length", kMaxSize));
  ASSIGN_OR_RETURN(c->num_layers, keys.Int("block_count", kMaxLayers));
  ASSIGN_OR_RETURN(c->num_heads, keys.Int("attention.head_count", kMaxSize));
  ASSIGN_OR_RETURN(c->num_kv_heads, keys.IntOr("attention.head_count_kv", c->num_heads, kMaxSize));
  ASSIGN_OR_RETURN(c->max_positions, keys.Int("context_length", int64_t{1} << 40));
  if (c->num_heads % c->num_kv_heads != 0) {
    return keys.Error(
        "attention.head_count_kv",
        absl::StrCat("expected a divisor of ", c->num_heads, " heads, got ", c->num_kv_heads));
  }
  ASSIGN_OR_RETURN(c->head_dim,
                   keys.IntOr("attention.key_length", c->hidden_size / c->num_heads, kMaxSize));
  ASSIGN_OR_RETURN(const int64_t value_dim,
                   keys.IntOr("attention.value_length", c->head_dim, kMaxSize));
  if (value_dim != c->head_dim || c->head_dim < 2 || c->head_dim % 2 != 0) {
    return keys.Error("attention.key_length",
                      absl::StrCat("keys of ", c->head_dim, " and values of ", value_dim,
                                   " are not supported (equal and even ones are)"));
  }
  ASSIGN_OR_RETURN(const int64_t rotated,
                   keys.IntOr("rope.dimension_count", c->head_dim, kMaxSize));
  if (c->family != Family::kGpt2 && rotated != c->head_dim) {
    return keys.Error("rope.dimension_count",
                      absl::StrCat("expected the head size ", c->head_dim, ", got ", rotated));
  }
  const GgufTensor* embedding = file.FindTensor("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path().string(), ": tensor token_embd.weight is missing or no matrix"));
  }
  c->vocab_size = embedding->shape[0];
  return absl::OkStatus();
}

absl::Status ReadRope(const GgufFile& file, const Keys& keys, ModelConfig* c) {
  ASSIGN_OR_RETURN(c->rope.theta,
                   keys.NumberOr("rope.freq_base", c->family == Family::kGemma3 ? 1e6 : 1e4));
  if (c->family == Family::kGemma3) c->local_rope.theta = 1e4;
  std::string type = "linear";
  if (keys.Has("rope.scaling.type")) {
    ASSIGN_OR_RETURN(type, file.String(keys.Path("rope.scaling.type")));
  }
  if (type == "linear") {
    ASSIGN_OR_RETURN(const double old_factor, keys.NumberOr("rope.scale_linear", 1.0));
    ASSIGN_OR_RETURN(c->rope.factor, keys.NumberOr("rope.scaling.factor", old_factor));
    if (c->rope.factor != 1) c->rope.scaling = RopeConfig::Scaling::kLinear;
  } else if (type != "none") {
    return keys.Error("rope.scaling.type",
                      absl::StrCat("expected none or linear, got \"", type, "\""));
  }
  const GgufTensor* divisors = file.FindTensor("rope_freqs.weight");
  if (divisors == nullptr) return absl::OkStatus();
  const int64_t size = c->head_dim / 2;
  if (divisors->type != GgufType::kF32 || divisors->shape != std::vector<int64_t>{size}) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path().string(), ": tensor rope_freqs.weight: expected ", size, " F32 values"));
  }
  c->rope.divisors.resize(size);
  std::memcpy(c->rope.divisors.data(), divisors->data.data(), divisors->data.size());
  for (float divisor : c->rope.divisors) {
    if (!(divisor > 0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.path().string(), ": tensor rope_freqs.weight: expected positive values"));
    }
  }
  return absl::OkStatus();
}

// Layer pattern and query scale are not in the file, but fixed for the published models.
absl::Status ReadGemma(const Keys& keys, ModelConfig* c) {
  const int64_t pattern = c->family == Family::kGemma2 ? 2 : 6;
  ASSIGN_OR_RETURN(const int64_t window, keys.IntOr("attention.sliding_window", 4096, kMaxSize));
  for (int64_t i = 0; i < c->num_layers; ++i) {
    c->windows[i] = (i + 1) % pattern == 0 ? 0 : window;
  }
  // The 27B models scale by hidden size per head.
  const bool is_27b = c->num_layers == (c->family == Family::kGemma2 ? 46 : 62);
  const int64_t scalar = is_27b ? c->hidden_size / c->num_heads : c->head_dim;
  c->attention_scale = 1.0f / std::sqrt(static_cast<float>(scalar));
  c->activation = Activation::kGeluTanh;
  if (c->family == Family::kGemma2) {
    ASSIGN_OR_RETURN(c->attention_soft_cap, keys.NumberOr("attn_logit_softcapping", 50.0));
    ASSIGN_OR_RETURN(c->logit_soft_cap, keys.NumberOr("final_logit_softcapping", 30.0));
  }
  return absl::OkStatus();
}

// End of text, and the ends of turn and message that chat models stop at.
absl::Status ReadEosIds(const GgufFile& file, ModelConfig* c) {
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    if (!file.Has(key)) continue;
    ASSIGN_OR_RETURN(const int64_t id, file.Int(key));
    if (id >= 0 && id < c->vocab_size) c->eos_ids.push_back(static_cast<text::TokenId>(id));
  }
  return absl::OkStatus();
}

// The type of most of the weights: what the file is stored in, as far as floats go.
c10::ScalarType DtypeOf(const GgufFile& file) {
  const GgufTensor* largest = nullptr;
  for (const GgufTensor& tensor : file.tensors()) {
    if (largest == nullptr || tensor.data.size() > largest->data.size()) largest = &tensor;
  }
  if (largest != nullptr && largest->type == GgufType::kF32) return c10::ScalarType::Float;
  if (largest != nullptr && largest->type == GgufType::kF16) return c10::ScalarType::Half;
  return c10::ScalarType::BFloat16;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadGgufConfig(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string architecture, file.String("general.architecture"));
  const auto it = Architectures().find(architecture);
  if (it == Architectures().end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path().string(), ": general.architecture: \"", architecture,
                     "\" is not supported; known: gemma2, gemma3, gpt2, llama, qwen2, qwen3"));
  }
  ModelConfig c;
  c.family = it->second.family;
  c.model_type = it->second.model_type;
  const Keys keys(file, architecture);
  RETURN_IF_ERROR(ReadSizes(file, keys, &c));
  c.windows.assign(c.num_layers, 0);
  c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
  c.dtype = DtypeOf(file);
  c.tie_word_embeddings = file.FindTensor("output.weight") == nullptr;
  RETURN_IF_ERROR(ReadEosIds(file, &c));
  if (c.family == Family::kGpt2) {
    ASSIGN_OR_RETURN(c.norm_eps, keys.NumberOr("attention.layer_norm_epsilon", 1e-5));
    c.activation = Activation::kGeluTanh;
    c.qkv_bias = c.output_bias = c.mlp_bias = true;
    return c;
  }
  ASSIGN_OR_RETURN(c.norm_eps, keys.NumberOr("attention.layer_norm_rms_epsilon", 1e-6));
  c.qkv_bias = file.FindTensor("blk.0.attn_q.bias") != nullptr;
  c.output_bias = file.FindTensor("blk.0.attn_output.bias") != nullptr;
  c.mlp_bias = file.FindTensor("blk.0.ffn_up.bias") != nullptr;
  RETURN_IF_ERROR(ReadRope(file, keys, &c));
  if (c.family == Family::kGemma2 || c.family == Family::kGemma3) {
    RETURN_IF_ERROR(ReadGemma(keys, &c));
  }
  return c;
}

}  // namespace flowmesh::model
