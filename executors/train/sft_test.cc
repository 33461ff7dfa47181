// Gradients and whole trainings against PyTorch and TRL (tests/goldens/train).
#include "executors/train/sft.h"

#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>

#include "executors/model/model_goldens.h"
#include "executors/train/model_weights.h"
#include "executors/train/recompute.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

// A parameter of ours by the reference's name: a part of a stack, turned as it is stored.
struct NamedPart {
  std::string name;
  at::Tensor tensor;
};
std::vector<NamedPart> Parts(const model::Parameter& parameter, const at::Tensor& tensor) {
  std::vector<NamedPart> parts;
  int64_t row = 0;
  for (const model::StoredName& part : parameter.parts) {
    const at::Tensor rows = tensor.narrow(0, row, part.shape[0]);
    parts.push_back({part.name, part.transposed ? rows.t() : rows});
    row += part.shape[0];
  }
  return parts;
}

class GradientTest : public testing::TestWithParam<std::tuple<const char*, bool>> {};

TEST_P(GradientTest, EqualsPyTorch) {
  const auto [family, recompute] = GetParam();
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family);
  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(AllWeights(*model), {.group = group.get()});
  TrainingLayerRunner runner(recompute, weights.hooks());
  model->set_layer_runner(&runner);

  const Json golden = ReadTrainGolden("grads/cases.json")["families"][family];
  std::vector<SftRow> rows;
  for (const Json& ids : golden["sequences"]) rows.push_back({ids.get<Ids>()});
  SftRecipe recipe(model.get(), &rows, /*is_packed=*/false);
  const StepBatches batches = {.batches = {{0, 1, 2}}};
  ASSERT_TRUE(recipe.BeginStep(batches, *group).ok());
  weights.BeginStep();
  ASSERT_TRUE(weights.BeginPass(true).ok());
  const auto report = recipe.Pass(batches.batches[0], 1.0);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_TRUE(weights.EndPass().ok());
  EXPECT_NEAR(report->loss, golden["loss"].get<double>(), 1e-4);

  const model::GoldenTensors want(TrainGolden("grads") / (std::string(family) + ".safetensors"));
  size_t compared = 0;
  for (const model::Parameter& parameter : model->parameters().all()) {
    for (const NamedPart& part : Parts(parameter, parameter.tensor->grad())) {
      const at::Tensor gradient = want.Get(part.name);
      ASSERT_EQ(part.tensor.sizes(), gradient.sizes()) << part.name;
      const double scale = std::max(gradient.abs().max().item<double>(), 1e-2);
      EXPECT_LT((part.tensor - gradient).abs().max().item<double>() / scale, 1e-4) << part.name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 10u);
}

INSTANTIATE_TEST_SUITE_P(Families, GradientTest,
                         testing::Combine(testing::Values("gemma2", "gemma3_text", "gpt2", "llama",
                                                          "llama_biased", "mistral", "qwen2",
                                                          "qwen2_window", "qwen3"),
                                          testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) ? "_recomputed" : "_kept");
                         });

class CurveTest : public testing::TestWithParam<const char*> {};

TEST_P(CurveTest, EqualsTheReference) {
  const Json golden = ReadTrainGolden(std::string("sft/") + GetParam() + ".json");
  const Json& training = golden["training"];
  const std::string family = golden["model"];
  const at::ScalarType dtype = training.value("bf16", false) ? at::kBFloat16 : at::kFloat;
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family, dtype);
  const auto texts = ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>();
  const bool packing = training.value("packing", false);
  const auto rows =
      MakeSftRows(texts, *LoadTinyTokenizer(family), training["max_seq_length"], packing);
  ASSERT_TRUE(rows.ok()) << rows.status();

  const bool is_bf16 = dtype == at::kBFloat16;
  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(AllWeights(*model), {.compute = dtype, .group = group.get()});
  TrainingLayerRunner runner(/*recompute=*/true, weights.hooks());
  model->set_layer_runner(&runner);
  SftRecipe recipe(model.get(), &*rows, packing);
  Trainer trainer(OptionsOf(training, static_cast<int64_t>(rows->size())), &recipe, &weights,
                  group.get());
  const auto state = trainer.Run({}, QuietCallbacks());
  ASSERT_TRUE(state.ok()) << state.status();

  const Json& steps = golden["steps"];
  ASSERT_EQ(state->log.size(), steps.size());
  const double tolerance = is_bf16 ? 2e-2 : 1e-3;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Json &got = state->log[i], &want = steps[i];
    const auto near = [&](const char* name, double limit) {
      const double value = want[name];
      EXPECT_NEAR(got[name].get<double>(), value, limit * std::max(1.0, std::abs(value)))
          << name << " of step " << i + 1;
    };
    near("loss", tolerance);
    near("learning_rate", 1e-9);
    // In bfloat16 rounding has its way after some steps; losses stay together all the same.
    if (!is_bf16 || i < 10) near("grad_norm", is_bf16 ? 0.1 : 1e-2);
    near("mean_token_accuracy", is_bf16 ? 0.2 : 1e-4);
    near("epoch", 1e-9);
    near("num_tokens", 0);
  }
  for (const model::Parameter& parameter : model->parameters().all()) {
    for (const NamedPart& part : Parts(parameter, *parameter.tensor)) {
      const double norm = golden["parameters"][part.name]["norm"];
      EXPECT_NEAR(part.tensor.to(at::kDouble).norm().item<double>(), norm,
                  (is_bf16 ? 1e-2 : 1e-3) * norm)
          << part.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, CurveTest,
                         testing::Values("llama", "gpt2", "gemma3_text", "qwen3",
                                         "accumulation_warmup_cosine", "weight_decay",
                                         "max_grad_norm", "max_grad_norm_15", "packing", "bf16",
                                         "short_last_batch", "epochs_1_5"),
                         [](const auto& info) { return std::string(info.param); });

// As PyTorch's GradScaler does: half after a step that overflowed, twice after 2,000 that did not.
TEST(LossScaleTest, HalvesAtOverflowsAndGrowsWhenAllIsWell) {
  TrainerState state;
  state.loss_scale = kFirstLossScale;
  for (int step = 0; step < 1999; ++step) UpdateLossScale(/*is_finite=*/true, state);
  EXPECT_EQ(state.loss_scale, kFirstLossScale);
  UpdateLossScale(/*is_finite=*/false, state);
  EXPECT_EQ(state.loss_scale, kFirstLossScale / 2);
  for (int step = 0; step < 1999; ++step) UpdateLossScale(/*is_finite=*/true, state);
  EXPECT_EQ(state.loss_scale, kFirstLossScale / 2);  // the overflow began the count anew
  UpdateLossScale(/*is_finite=*/true, state);
  EXPECT_EQ(state.loss_scale, kFirstLossScale);
}

}  // namespace
}  // namespace flowmesh::train
