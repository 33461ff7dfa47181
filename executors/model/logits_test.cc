// The families' logits against Transformers, and the greedy continuations that follow from them.
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "executors/device/test_device.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

std::unique_ptr<CausalLm> Load(const std::filesystem::path& path, at::ScalarType dtype) {
  LoadOptions options;
  options.dtype = dtype;
  options.device = device::TestDevice();
  std::vector<std::string> warnings;
  auto model = LoadCausalLm(path, options, &warnings);
  EXPECT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(warnings.empty()) << warnings[0];
  return model.ok() ? *std::move(model) : nullptr;
}

std::vector<Ids> Prompts(const std::string& folder) {
  return ReadModelGolden(folder + "/cases.json")["prompts"].get<std::vector<Ids>>();
}

// A family's logits file, or that of a GGUF file, against the model.
void ExpectLogits(CausalLm& model, const std::string& folder, const char* suffix,
                  double bf16_limit) {
  const GoldenTensors golden(ModelGolden(folder + "/logits.safetensors"));
  const std::vector<Ids> prompts = Prompts(folder);
  ASSERT_GE(prompts.size(), 2u);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const at::Tensor want = golden.Get(std::to_string(i) + suffix);
    const at::Tensor got = LogitsOf(model, {prompts[i]});
    ASSERT_EQ(got.sizes(), want.sizes());
    if (model.dtype() == at::kFloat) {
      EXPECT_LE(ErrorInTolerances(got, want), 1.0) << folder << " prompt " << i;
    } else {
      EXPECT_LE(RelativeError(got, want), bf16_limit) << folder << " prompt " << i;
    }
  }
}

class FamilyTest : public testing::TestWithParam<const char*> {};

TEST_P(FamilyTest, Float32LogitsEqualTransformers) {
  const std::unique_ptr<CausalLm> model = Load(ModelGolden(GetParam()), at::kFloat);
  ASSERT_NE(model, nullptr);
  EXPECT_EQ(model->info().family,
            ReadModelGolden(std::string(GetParam()) + "/config.json")["model_type"]);
  ExpectLogits(*model, GetParam(), ".fp32", 0);
}

TEST_P(FamilyTest, Bfloat16LogitsAreNearThoseOfTransformers) {
  const std::unique_ptr<CausalLm> model = Load(ModelGolden(GetParam()), at::kBFloat16);
  ASSERT_NE(model, nullptr);
  ExpectLogits(*model, GetParam(), ".bf16", 2e-2);
}

// Sequences of different lengths in one forward.
TEST_P(FamilyTest, ABatchIsItsSequencesAlone) {
  const std::unique_ptr<CausalLm> model = Load(ModelGolden(GetParam()), at::kFloat);
  ASSERT_NE(model, nullptr);
  const std::vector<Ids> prompts = Prompts(GetParam());
  const at::Tensor together = LogitsOf(*model, prompts);
  int64_t begin = 0;
  for (const Ids& prompt : prompts) {
    const int64_t length = static_cast<int64_t>(prompt.size());
    const at::Tensor alone = LogitsOf(*model, {prompt});
    const at::Tensor batched = together.narrow(0, begin, length);
    EXPECT_LE(ErrorInTolerances(batched, alone), 1.0);
    EXPECT_TRUE(batched.argmax(-1).equal(alone.argmax(-1)));
    begin += length;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest,
                         testing::Values("llama", "llama_biased", "mistral", "qwen2",
                                         "qwen2_window", "qwen3", "gemma2", "gemma3_text", "gemma3",
                                         "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

class GreedyTest : public testing::TestWithParam<const char*> {};

// Each tenth case, in one growing batch: it also proves that a sequence ignores its neighbours.
TEST_P(GreedyTest, ContinuationsEqualTransformers) {
  const std::unique_ptr<CausalLm> model = Load(ModelGolden(GetParam()), at::kFloat);
  ASSERT_NE(model, nullptr);
  const Json golden = ReadModelGolden(std::string(GetParam()) + "/greedy.json");
  ASSERT_EQ(golden["cases"].size(), 100u);
  constexpr size_t kEach = 10;  // the engine's tests run all of them
  std::vector<Ids> sequences, wanted;
  for (size_t i = 0; i < golden["cases"].size(); i += kEach) {
    sequences.push_back(golden["cases"][i]["prompt"].get<Ids>());
    wanted.push_back(golden["cases"][i]["output"].get<Ids>());
  }
  std::vector<Ids> outputs(sequences.size());
  for (size_t step = 0;; ++step) {
    std::vector<Ids> growing;
    std::vector<size_t> places;
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (step >= wanted[i].size()) continue;
      growing.push_back(sequences[i]);
      places.push_back(i);
    }
    if (growing.empty()) break;
    const at::Tensor best = LogitsOf(*model, growing).argmax(-1);
    int64_t end = 0;
    for (size_t k = 0; k < growing.size(); ++k) {
      end += static_cast<int64_t>(growing[k].size());
      const auto id = static_cast<text::TokenId>(best[end - 1].item<int64_t>());
      sequences[places[k]].push_back(id);
      outputs[places[k]].push_back(id);
    }
  }
  EXPECT_EQ(outputs, wanted);
}

INSTANTIATE_TEST_SUITE_P(All, GreedyTest,
                         testing::Values("llama", "mistral", "qwen2", "qwen3", "gemma2",
                                         "gemma3_text", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

class GgufModelTest : public testing::TestWithParam<const char*> {};

TEST_P(GgufModelTest, LogitsEqualTransformersOnTheDequantisedWeights) {
  const std::string name = std::string("gguf/") + GetParam();
  const std::unique_ptr<CausalLm> model = Load(ModelGolden(name + ".gguf"), at::kFloat);
  ASSERT_NE(model, nullptr);
  ExpectLogits(*model, name, ".fp32", 0);
}

INSTANTIATE_TEST_SUITE_P(All, GgufModelTest,
                         testing::Values("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(LogitRowsTest, OnlyTheWantedRowsAreComputed) {
  const std::unique_ptr<CausalLm> model = Load(ModelGolden("llama"), at::kFloat);
  ASSERT_NE(model, nullptr);
  const Ids prompt = {5, 6, 7, 8, 9};
  const at::Tensor all = LogitsOf(*model, {prompt});
  ForwardInput input;
  input.token_ids = at::tensor(std::vector<int64_t>{5, 6, 7, 8, 9});
  input.positions = at::tensor(std::vector<int64_t>{0, 1, 2, 3, 4});
  input.logit_rows = at::tensor(std::vector<int64_t>{4, 1});
  input.lengths = at::tensor(std::vector<int64_t>{5, 5, 5, 5, 5});
  DenseAttention attention(at::tensor(std::vector<int64_t>{5}));
  const at::Tensor some = model->Forward(input, attention);
  ASSERT_EQ(some.sizes(), (std::vector<int64_t>{2, all.size(1)}));
  EXPECT_LE(ErrorInTolerances(some[0], all[4]), 1.0);
  EXPECT_LE(ErrorInTolerances(some[1], all[1]), 1.0);
}

}  // namespace
}  // namespace flowmesh::model
