// DPO against TRL (tests/goldens/train/dpo).
#include "executors/train/dpo.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "executors/train/model_weights.h"
#include "executors/train/recompute.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

std::vector<PreferencePair> Pairs(const std::string& family, const DpoLimits& limits) {
  const auto tokenizer = LoadTinyTokenizer(family);
  std::vector<PreferencePair> pairs;
  const Json golden = ReadTrainGolden("dpo/preferences.json");
  for (const Json& row : golden["preferences"]) {
    pairs.push_back(MakePair(row["prompt"], row["chosen"], row["rejected"], *tokenizer,
                             *tokenizer->eos_id(), limits));
  }
  return pairs;
}

// The training that a golden describes.
absl::StatusOr<TrainerState> Train(const Json& golden, at::ScalarType compute = at::kFloat) {
  const Json& training = golden["training"];
  const std::string family = golden["model"];
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family, compute);
  const auto pairs = Pairs(family, {training["max_prompt_length"], training["max_length"]});
  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(AllWeights(*model), {.compute = compute, .group = group.get()});
  TrainingLayerRunner runner(/*recompute=*/true, weights.hooks());
  model->set_layer_runner(&runner);
  DpoRecipe recipe(model.get(), &pairs, {training["beta"], training["label_smoothing"]});
  RETURN_IF_ERROR(
      recipe.Prepare(5, weights, *group, [](int64_t, int64_t) { return absl::OkStatus(); }));
  Trainer trainer(OptionsOf(training, static_cast<int64_t>(pairs.size())), &recipe, &weights,
                  group.get());
  return trainer.Run({}, QuietCallbacks());
}

class DpoCurveTest : public testing::TestWithParam<const char*> {};

TEST_P(DpoCurveTest, EqualsTrl) {
  const Json golden = ReadTrainGolden(std::string("dpo/") + GetParam() + ".json");
  const auto state = Train(golden);
  ASSERT_TRUE(state.ok()) << state.status();

  const Json& steps = golden["steps"];
  ASSERT_EQ(state->log.size(), steps.size());
  EXPECT_NEAR(state->log[0]["loss"].get<double>(), std::log(2.0), 1e-5);
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const char* name :
         {"loss", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/accuracies",
          "rewards/margins", "logps/chosen", "logps/rejected", "epoch", "grad_norm"}) {
      // In the first step policy and reference are the same, and which of two equal rewards is
      // larger is a matter of rounding.
      if (i == 0 && std::string(name) == "rewards/accuracies") continue;
      const double value = steps[i][name];
      EXPECT_NEAR(state->log[i][name].get<double>(), value, 1e-3 * std::max(1.0, std::abs(value)))
          << name << " of step " << i + 1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, DpoCurveTest,
                         testing::Values("llama", "gpt2", "label_smoothing", "cuts",
                                         "accumulation"),
                         [](const auto& info) { return std::string(info.param); });

class DpoAutocastTest : public testing::TestWithParam<const char*> {};

TEST_P(DpoAutocastTest, StaysNearTrl) {
  const Json golden = ReadTrainGolden(std::string("dpo/") + GetParam() + "_bf16.json");
  const Json& steps = golden["steps"];
  const auto state = Train(golden, at::kBFloat16);
  ASSERT_TRUE(state.ok()) << state.status();
  ASSERT_EQ(state->log.size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const auto& [name, limit] : {std::pair("loss", 2e-2),
                                      {"grad_norm", 0.1},
                                      {"logps/chosen", 5e-3},
                                      {"logps/rejected", 5e-3}}) {
      const double value = steps[i][name];
      EXPECT_NEAR(state->log[i][name].get<double>(), value, limit * std::max(1.0, std::abs(value)))
          << name << " of step " << i + 1;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DpoAutocastTest,
                         testing::Values("gemma2", "gemma3_text", "gpt2", "llama", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

TEST(MakePairTest, KeepsEnds) {
  const auto tokenizer = LoadTinyTokenizer("llama");
  const text::TokenId eos = *tokenizer->eos_id();
  const Ids prompt = tokenizer->Encode("the small world", false);
  const Ids answer = tokenizer->Encode("turns", false);
  const auto whole = MakePair("the small world", "turns", "", *tokenizer, eos, {});
  EXPECT_EQ(whole.chosen.ids.size(), prompt.size() + answer.size() + 1);
  EXPECT_EQ(whole.chosen.ids.back(), eos);
  EXPECT_EQ(whole.chosen.prompt_tokens, static_cast<int64_t>(prompt.size()));
  EXPECT_EQ(whole.rejected.ids.size(), prompt.size() + 1);

  const auto cut = MakePair("the small world", "turns", "", *tokenizer, eos, {2, 3});
  EXPECT_EQ(cut.rejected.ids, (Ids{prompt[prompt.size() - 2], prompt.back(), eos}));
  EXPECT_EQ(cut.rejected.prompt_tokens, 2);
  EXPECT_EQ(cut.chosen.ids.size(), 3u);
  EXPECT_EQ(cut.chosen.ids.back(), eos);
}

}  // namespace
}  // namespace flowmesh::train
