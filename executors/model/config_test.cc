// config.json: defaults of each family, and values that cannot be.
#include "executors/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json.h"

namespace flowmesh::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<ModelConfig> Parse(const std::string& text) {
  const Json document = Json::parse(text);
  return ParseConfig(Field(&document, ""));
}

ModelConfig Read(const std::string& text) {
  const auto config = Parse(text);
  EXPECT_TRUE(config.ok()) << text << ": " << config.status();
  return config.ok() ? *config : ModelConfig();
}

std::string ErrorOf(const std::string& text) {
  const auto config = Parse(text);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return Message(config.status());
}

TEST(ConfigTest, DefaultsAreThoseOfTransformersClasses) {
  const ModelConfig llama = Read(R"({"model_type": "llama"})");
  EXPECT_EQ(llama.num_kv_heads, 32);
  EXPECT_EQ(llama.head_dim, 128);
  EXPECT_EQ(llama.rope.theta, 1e4);
  EXPECT_EQ(llama.norm_eps, 1e-6);
  EXPECT_FALSE(llama.tie_word_embeddings);
  EXPECT_EQ(llama.dtype, c10::ScalarType::Float);

  const ModelConfig mistral = Read(R"({"model_type": "mistral"})");
  EXPECT_EQ(mistral.num_kv_heads, 8);
  EXPECT_EQ(mistral.windows[0], 4096);
  EXPECT_EQ(Read(R"({"model_type": "mistral", "sliding_window": null})").windows[0], 0);

  const ModelConfig qwen2 = Read(R"({"model_type": "qwen2", "sliding_window": 4096})");
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_FALSE(qwen2.output_bias);
  EXPECT_EQ(qwen2.windows.back(), 0);  // not used unless use_sliding_window says so
  EXPECT_EQ(Read(R"({"model_type": "qwen2", "use_sliding_window": true, "sliding_window": null})")
                .windows.back(),
            0);

  EXPECT_EQ(Read(R"({"model_type": "qwen3"})").head_dim, 128);

  const ModelConfig gemma2 = Read(R"({"model_type": "gemma2"})");
  EXPECT_EQ(gemma2.attention_soft_cap, 50);
  EXPECT_EQ(gemma2.logit_soft_cap, 30);
  EXPECT_EQ(gemma2.attention_scale, 1.0f / 16);
  EXPECT_TRUE(gemma2.tie_word_embeddings);
  EXPECT_GT(gemma2.windows[0], 0);
  EXPECT_EQ(gemma2.windows[1], 0);
  EXPECT_EQ(Read(R"({"model_type": "gemma2", "final_logit_softcapping": null})").logit_soft_cap, 0);

  const ModelConfig gemma3 = Read(R"({"model_type": "gemma3_text"})");
  EXPECT_EQ(gemma3.rope.theta, 1e6);
  EXPECT_EQ(gemma3.local_rope.theta, 1e4);
  EXPECT_EQ(gemma3.logit_soft_cap, 0);
  for (int i = 0; i < 12; ++i) EXPECT_EQ(gemma3.windows[i] == 0, i % 6 == 5) << i;

  EXPECT_TRUE(Read(R"({"model_type": "gpt2"})").tie_word_embeddings);
}

TEST(ConfigTest, Windows) {
  const std::string start = R"({"model_type": "qwen2", "num_hidden_layers": 4, "sliding_window": 8,
                               "use_sliding_window": true, )";
  EXPECT_THAT(Read(start + R"("max_window_layers": 3})").windows, ElementsAre(0, 0, 0, 8));
  const std::string types = R"("layer_types": ["sliding_attention", "full_attention",
                              "sliding_attention", "full_attention"]})";
  EXPECT_THAT(Read(start + types).windows, ElementsAre(8, 0, 8, 0));
  EXPECT_THAT(ErrorOf(start + R"("layer_types": ["full_attention"]})"),
              HasSubstr("layer_types: expected 4 entries, got 1"));
  EXPECT_THAT(ErrorOf(start + R"("layer_types": ["a", "a", "a", "a"]})"),
              HasSubstr("layer_types[0]: expected sliding_attention or full_attention"));
  EXPECT_THAT(Read(R"({"model_type": "gemma3_text", "num_hidden_layers": 4, "sliding_window": 8,
                       "sliding_window_pattern": 2})")
                  .windows,
              ElementsAre(8, 0, 8, 0));
}

TEST(ConfigTest, RopeScaling) {
  const auto with = [](const std::string& scaling) {
    return R"({"model_type": "llama", "max_position_embeddings": 64, "rope_scaling": )" + scaling +
           "}";
  };
  EXPECT_EQ(Read(with("null")).rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_EQ(Read(with(R"({"rope_type": "default"})")).rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_EQ(Read(with(R"({"type": "linear", "factor": 2})")).rope.scaling,
            RopeConfig::Scaling::kLinear);
  EXPECT_EQ(Read(with(R"({"type": "dynamic", "factor": 2})")).rope.original_positions, 64);
  EXPECT_THAT(ErrorOf(with(R"({"rope_type": "yarn", "factor": 2})")),
              HasSubstr("rope_scaling.rope_type: expected default, linear, dynamic or llama3, got "
                        "\"yarn\""));
  EXPECT_THAT(ErrorOf(with(R"({"rope_type": "linear"})")), HasSubstr("rope_scaling.factor"));
  EXPECT_THAT(ErrorOf(with(R"({"rope_type": "linear", "factor": 0.5})")),
              HasSubstr("rope_scaling.factor: expected a number of at least 1"));
  EXPECT_THAT(ErrorOf(with(R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                               "high_freq_factor": 1, "original_max_position_embeddings": 8})")),
              HasSubstr("rope_scaling.high_freq_factor"));
}

TEST(ConfigTest, ValuesThatCannotBe) {
  const auto with = [](const std::string& rest) {
    return R"({"model_type": "llama", )" + rest + "}";
  };
  EXPECT_THAT(ErrorOf(with(R"("hidden_size": "big")")), HasSubstr("hidden_size: expected"));
  EXPECT_THAT(ErrorOf(with(R"("hidden_size": 0)")), HasSubstr("hidden_size: expected"));
  EXPECT_THAT(ErrorOf(with(R"("num_hidden_layers": 1000000000)")), HasSubstr("num_hidden_layers"));
  EXPECT_THAT(
      ErrorOf(with(R"("num_key_value_heads": 5)")),
      HasSubstr("num_key_value_heads: expected a divisor of num_attention_heads 32, got 5"));
  EXPECT_THAT(ErrorOf(with(R"("head_dim": 7)")), HasSubstr("head_dim: must be even"));
  EXPECT_THAT(ErrorOf(with(R"("rms_norm_eps": -1)")),
              HasSubstr("rms_norm_eps: expected a number above 0"));
  EXPECT_THAT(ErrorOf(with(R"("hidden_act": "mish")")),
              HasSubstr("hidden_act: expected silu, gelu"));
  EXPECT_THAT(ErrorOf(with(R"("torch_dtype": "int4")")),
              HasSubstr("torch_dtype: expected float32, bfloat16 or float16, got \"int4\""));
  EXPECT_THAT(ErrorOf(with(R"("eos_token_id": [1, "two"])")),
              HasSubstr("eos_token_id[1]: expected"));
  EXPECT_THAT(ErrorOf(R"({"model_type": "gemma3"})"), HasSubstr("text_config: expected a map"));
  EXPECT_THAT(ErrorOf(R"({"model_type": "gpt2", "n_head": 7})"),
              HasSubstr("n_head: expected a divisor of n_embd 768"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("expected a map"));
}

}  // namespace
}  // namespace flowmesh::model
