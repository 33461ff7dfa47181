// Models that are written as Hugging Face folders. With FLOWMESH_KEEP_FOLDERS set to a folder,
// those made of GGUF files stay there, for tests/goldens/train/check_gguf_folders.py.
#include "executors/model/model_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numbers>

#include "common/files.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

ModelConfig Parsed(const Json& document) {
  const auto config = ParseConfig(Field(&document, ""));
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig());
}

class WriteConfigTest : public testing::TestWithParam<const char*> {};

TEST_P(WriteConfigTest, IsReadAsTheSameConfiguration) {
  const Json document = ReadModelGolden(std::string(GetParam()) + "/config.json");
  ModelConfig config = Parsed(document);
  const auto written = WriteConfig(config);
  ASSERT_TRUE(written.ok()) << written.status();
  config.dtype = at::kFloat;  // is the writer's of the weights to say
  if (config.model_type == "gemma3") config.model_type = "gemma3_text";
  EXPECT_TRUE(Parsed(*written) == config) << DumpJson(*written, 2);
}

INSTANTIATE_TEST_SUITE_P(All, WriteConfigTest,
                         testing::Values("gpt2", "llama", "llama_biased", "mistral", "qwen2",
                                         "qwen2_window", "qwen3", "gemma2", "gemma3",
                                         "gemma3_text"),
                         [](const auto& info) { return std::string(info.param); });

// A llama configuration whose frequencies have the divisors of a llama3 scaling.
ModelConfig WithDivisors(int64_t head_dim, double theta, const RopeConfig& scaling) {
  ModelConfig config = Parsed(ReadModelGolden("llama/config.json"));
  config.head_dim = head_dim;
  config.rope = {.theta = theta};
  const auto original = static_cast<double>(scaling.original_positions);
  for (int64_t i = 0; i < head_dim; i += 2) {
    const double wavelength =
        2 * std::numbers::pi *
        std::pow(theta, static_cast<double>(i) / static_cast<double>(head_dim));
    double divisor = 1;
    if (wavelength > original / scaling.low_freq_factor) {
      divisor = scaling.factor;
    } else if (wavelength > original / scaling.high_freq_factor) {
      const double smooth = (original / wavelength - scaling.low_freq_factor) /
                            (scaling.high_freq_factor - scaling.low_freq_factor);
      divisor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    config.rope.divisors.push_back(static_cast<float>(divisor));
  }
  return config;
}

TEST(WriteConfigTest, DivisorsOfFrequenciesBecomeTheirScaling) {
  // Llama 3.1 8B and 3.2 1B.
  for (const auto& [head_dim, factor] : {std::pair{128, 8.0}, std::pair{64, 32.0}}) {
    const auto written =
        WriteConfig(WithDivisors(head_dim, 5e5, {.factor = factor, .original_positions = 8192}));
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ((*written)["rope_scaling"], (Json{{"rope_type", "llama3"},
                                                {"factor", factor},
                                                {"low_freq_factor", 1.0},
                                                {"high_freq_factor", 4.0},
                                                {"original_max_position_embeddings", 8192}}));
  }
  // Others are met too, with one frequency in the band, with none, or with names of their own.
  for (const auto& [head_dim, original] :
       {std::pair{16, 32}, std::pair{16, 700}, std::pair{8, 9}}) {
    const ModelConfig config =
        WithDivisors(head_dim, 5e5, {.factor = 8, .original_positions = original});
    EXPECT_TRUE(WriteConfig(config).ok()) << original << ": " << WriteConfig(config).status();
  }
  const auto named = WriteConfig(WithDivisors(
      128, 1e4,
      {.factor = 4, .low_freq_factor = 2, .high_freq_factor = 6, .original_positions = 4096}));
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ((*named)["rope_scaling"]["original_max_position_embeddings"], 2048);
  EXPECT_EQ((*named)["rope_scaling"]["high_freq_factor"], 3.0);
}

TEST(WriteConfigTest, WhatTransformersHasNoClassForIsNamed) {
  ModelConfig config = WithDivisors(128, 5e5, {.factor = 8, .original_positions = 8192});
  config.rope.divisors[40] *= 1.5f;
  EXPECT_THAT(Message(WriteConfig(config).status()), HasSubstr("rope_freqs.weight: its divisor"));
  config = Parsed(ReadModelGolden("llama/config.json"));
  config.qkv_bias = true;
  EXPECT_THAT(Message(WriteConfig(config).status()),
              HasSubstr("type llama with biases on q, k and v, no bias on the output"));
}

class GgufFolderTest : public testing::TestWithParam<const char*> {
 protected:
  // The folder that a training would write.
  static absl::Status Write(const fs::path& file, const fs::path& folder) {
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenCheckpoint(file));
    std::vector<std::string> warnings;
    ASSIGN_OR_RETURN(const auto model, LoadDecoder(checkpoint, {.dtype = at::kFloat}, &warnings));
    RETURN_IF_ERROR(MakeDirectories(folder));
    return WriteModelFiles(
        folder, checkpoint,
        StoredTensors(model->parameters(), [](const Parameter& p) { return *p.tensor; }));
  }
};

TEST_P(GgufFolderTest, IsTheSameModel) {
  const fs::path file = ModelGolden(std::string("gguf/") + GetParam() + ".gguf");
  const TempDir temp;
  const char* kept = std::getenv("FLOWMESH_KEEP_FOLDERS");
  const fs::path folder = (kept == nullptr ? temp.path() : fs::path(kept)) / GetParam();
  const absl::Status status = Write(file, folder);
  ASSERT_TRUE(status.ok()) << status;
  const auto own = LoadModel(file, {.dtype = at::kFloat});
  const auto written = LoadModel(folder, {.dtype = at::kFloat});
  ASSERT_TRUE(own.ok() && written.ok()) << own.status() << written.status();
  EXPECT_THAT(written->warnings, testing::IsEmpty());
  EXPECT_EQ(written->model->info().family, own->model->info().family);
  EXPECT_EQ(written->model->info().max_positions, own->model->info().max_positions);
  EXPECT_EQ(written->model->info().eos_ids, own->model->info().eos_ids);
  const Json cases = ReadModelGolden(std::string("gguf/") + GetParam() + "/cases.json");
  ASSERT_GE(cases["prompts"].size(), 2u);
  for (const Json& prompt : cases["prompts"]) {
    const Ids ids = prompt.get<Ids>();
    EXPECT_LE(ErrorInTolerances(LogitsOf(*written->model, {ids}), LogitsOf(*own->model, {ids})),
              1.0);
  }
  for (const char* text : {"the small world", " two  words\n", "größe 語 <s> 12.5", ""}) {
    EXPECT_EQ(written->tokenizer->Encode(text, true), own->tokenizer->Encode(text, true)) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufFolderTest,
                         testing::Values("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace flowmesh::model
