// A ModelConfig as Transformers' config.json.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "executors/model/config.h"

namespace flowmesh::model {
namespace {

// The llama3 scaling of a RopeConfig: by what a frequency of that wavelength is divided.
double Divisor(const RopeConfig& rope, double wavelength) {
  const auto original = static_cast<double>(rope.original_positions);
  const double smooth = std::clamp((original / wavelength - rope.low_freq_factor) /
                                       (rope.high_freq_factor - rope.low_freq_factor),
                                   0.0, 1.0);
  return 1 / ((1 - smooth) / rope.factor + smooth);
}

// Frequencies are divided by the factor when their wavelength is long, by nothing when it is short,
// and by something between in a band, where the reciprocal is linear in the frequency. Two points
// there, or the gap where none lies in it, give the band; its lower end may be called 1.
absl::StatusOr<RopeConfig> FitLlama3(const RopeConfig& rope, int64_t head_dim) {
  constexpr double kTolerance = 1e-4;
  RopeConfig fit = {.theta = rope.theta, .scaling = RopeConfig::Scaling::kLlama3};
  fit.factor = *std::max_element(rope.divisors.begin(), rope.divisors.end());
  std::vector<double> wavelengths, in_band;  // in_band: places
  double longest_kept = 0, shortest_divided = 0;
  for (size_t i = 0; i < rope.divisors.size(); ++i) {
    const double exponent = 2 * static_cast<double>(i) / static_cast<double>(head_dim);
    wavelengths.push_back(2 * std::numbers::pi * std::pow(rope.theta, exponent));
    if (std::abs(rope.divisors[i] - 1) < kTolerance) {
      longest_kept = wavelengths.back();
    } else if (rope.divisors[i] > fit.factor * (1 - kTolerance)) {
      if (shortest_divided == 0) shortest_divided = wavelengths.back();
    } else {
      in_band.push_back(static_cast<double>(i));
    }
  }
  const auto smooth = [&](double place) {
    const auto i = static_cast<size_t>(place);
    return (1 / rope.divisors[i] - 1 / fit.factor) / (1 - 1 / fit.factor);
  };
  const auto wavelength = [&](double place) { return wavelengths[static_cast<size_t>(place)]; };
  double original = 0;
  if (in_band.size() >= 2) {
    const double first = in_band.front(), last = in_band.back();
    const double slope =
        (smooth(first) - smooth(last)) / (1 / wavelength(first) - 1 / wavelength(last));
    const double offset = smooth(first) - slope / wavelength(first);
    fit.high_freq_factor = std::round((1 - 1 / offset) * 1e3) / 1e3;
    original = -slope / offset;
  } else if (in_band.size() == 1) {
    original = (smooth(in_band[0]) * 3 + 1) * wavelength(in_band[0]);
  } else {
    original = std::floor(shortest_divided);
    if (longest_kept * fit.high_freq_factor > original) {
      fit.high_freq_factor = std::floor(original / longest_kept * 1e3) / 1e3;
    }
  }
  fit.original_positions = static_cast<int64_t>(std::llround(original));
  for (size_t i = 0; i < wavelengths.size(); ++i) {
    const double want = rope.divisors[i];
    if (std::abs(Divisor(fit, wavelengths[i]) - want) <= kTolerance * want) continue;
    return absl::UnimplementedError(
        absl::StrCat("rope_freqs.weight: its divisor ", i, ", ", want,
                     ", is none of a llama3 scaling, which alone can be written to config.json"));
  }
  return fit;
}

// The classes have biases on q, k, v and the output together, or on q, k and v alone (Qwen2).
absl::Status CheckBiases(const ModelConfig& c) {
  const bool is_qwen2 = c.family == Family::kQwen2;
  const bool attention = is_qwen2 ? c.qkv_bias && !c.output_bias : c.qkv_bias == c.output_bias;
  if (attention && (c.family == Family::kLlama || !c.mlp_bias)) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      "a model of type ", c.model_type, " with ", c.qkv_bias ? "" : "no ", "biases on q, k and v, ",
      c.output_bias ? "" : "no ", "bias on the output and ", c.mlp_bias ? "" : "no ",
      "biases in the MLP cannot be written as a Hugging Face folder"));
}

// `rope_scaling`; null when there is none.
absl::StatusOr<Json> WriteRopeScaling(const ModelConfig& c) {
  RopeConfig rope = c.rope;
  if (!rope.divisors.empty()) {
    ASSIGN_OR_RETURN(rope, FitLlama3(c.rope, c.head_dim));
  }
  switch (rope.scaling) {
    case RopeConfig::Scaling::kNone:
      break;
    case RopeConfig::Scaling::kLinear:
      return Json{{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeConfig::Scaling::kDynamic:
      return Json{{"rope_type", "dynamic"}, {"factor", rope.factor}};
    case RopeConfig::Scaling::kLlama3:
      return Json{{"rope_type", "llama3"},
                  {"factor", rope.factor},
                  {"low_freq_factor", rope.low_freq_factor},
                  {"high_freq_factor", rope.high_freq_factor},
                  {"original_max_position_embeddings", rope.original_positions}};
  }
  return Json(nullptr);
}

const char* ActivationName(Activation activation, Family family) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return family == Family::kGpt2 ? "gelu_new" : "gelu_pytorch_tanh";
    case Activation::kRelu:
      break;
  }
  return "relu";
}

Json WriteGpt2(const ModelConfig& c) {
  return {{"vocab_size", c.vocab_size},
          {"n_positions", c.max_positions},
          {"n_ctx", c.max_positions},
          {"n_embd", c.hidden_size},
          {"n_layer", c.num_layers},
          {"n_head", c.num_heads},
          {"n_inner", c.intermediate_size},
          {"layer_norm_epsilon", c.norm_eps},
          {"activation_function", ActivationName(c.activation, c.family)},
          {"scale_attn_weights", c.attention_scale != 1.0f},
          {"scale_attn_by_inverse_layer_idx", c.scale_by_layer},
          {"embd_pdrop", c.dropout.embedding},
          {"attn_pdrop", c.dropout.attention},
          {"resid_pdrop", c.dropout.residual}};
}

// Sliding windows: one size, and which layers have it.
void WriteWindows(const ModelConfig& c, Json& root) {
  const int64_t window = *std::max_element(c.windows.begin(), c.windows.end());
  switch (c.family) {
    case Family::kGpt2:
    case Family::kLlama:
      return;
    case Family::kMistral:
      root["sliding_window"] = window == 0 ? Json(nullptr) : Json(window);
      return;
    case Family::kQwen2:
    case Family::kQwen3:
      root["use_sliding_window"] = window > 0;
      root["sliding_window"] = window == 0 ? Json(nullptr) : Json(window);
      break;
    case Family::kGemma2:
    case Family::kGemma3:
      root["sliding_window"] = window;
      break;
  }
  Json types = Json::array();
  for (const int64_t own : c.windows) {
    types.push_back(own > 0 ? "sliding_attention" : "full_attention");
  }
  root["layer_types"] = std::move(types);
}

void WriteGemma(const ModelConfig& c, Json& root) {
  const double scale = c.attention_scale;
  // A size of heads, of which the square root of a float is all that is left.
  root["query_pre_attn_scalar"] = std::round(1 / (scale * scale) * 1e3) / 1e3;
  const auto cap = [](float value) { return value == 0 ? Json(nullptr) : Json(value); };
  root["attn_logit_softcapping"] = cap(c.attention_soft_cap);
  root["final_logit_softcapping"] = cap(c.logit_soft_cap);
  if (c.family == Family::kGemma3) root["rope_local_base_freq"] = c.local_rope.theta;
}

absl::StatusOr<Json> WriteLlama(const ModelConfig& c) {
  RETURN_IF_ERROR(CheckBiases(c));
  const bool is_gemma = c.family == Family::kGemma2 || c.family == Family::kGemma3;
  Json root = {
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.hidden_size},
      {"intermediate_size", c.intermediate_size},
      {"num_hidden_layers", c.num_layers},
      {"num_attention_heads", c.num_heads},
      {"num_key_value_heads", c.num_kv_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.rope.scaling == RopeConfig::Scaling::kDynamic
                                      ? c.rope.original_positions
                                      : c.max_positions},
      {"rms_norm_eps", c.norm_eps},
      {is_gemma ? "hidden_activation" : "hidden_act", ActivationName(c.activation, c.family)},
      {"rope_theta", c.rope.theta}};
  ASSIGN_OR_RETURN(root["rope_scaling"], WriteRopeScaling(c));
  // Qwen2 has biases and Mistral none, whatever is written.
  if (c.family != Family::kQwen2 && c.family != Family::kMistral) {
    root["attention_bias"] = c.output_bias;
  }
  if (c.family == Family::kLlama) root["mlp_bias"] = c.mlp_bias;
  WriteWindows(c, root);
  if (is_gemma) WriteGemma(c, root);
  return root;
}

}  // namespace

absl::StatusOr<Json> WriteConfig(const ModelConfig& c) {
  // The text part of a multimodal model is a model of its own.
  Json root = {{"model_type", c.model_type == "gemma3" ? "gemma3_text" : c.model_type}};
  if (c.family == Family::kGpt2) {
    root.update(WriteGpt2(c));
  } else {
    ASSIGN_OR_RETURN(const Json rest, WriteLlama(c));
    root.update(rest);
  }
  root["tie_word_embeddings"] = c.tie_word_embeddings;
  if (c.eos_ids.size() == 1) {
    root["eos_token_id"] = c.eos_ids[0];
  } else if (!c.eos_ids.empty()) {
    root["eos_token_id"] = c.eos_ids;
  }
  root["use_cache"] = true;
  return root;
}

}  // namespace flowmesh::model
