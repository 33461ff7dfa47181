// Gradients and whole trainings against PyTorch and TRL (tests/goldens/train).
#include "executors/train/sft.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "executors/model/model_goldens.h"
#include "executors/train/attention.h"
#include "executors/train/head_loss.h"
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
  const auto report = RunPass(recipe, {0, 1, 2}, weights, *group);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_NEAR(report->loss, golden["loss"].get<double>(), 1e-4);

  const model::GoldenTensors want(TrainGolden("grads") / (std::string(family) + ".safetensors"));
  size_t compared = 0;
  for (const model::Parameter& parameter : model->parameters().all()) {
    for (const NamedPart& part : Parts(parameter, parameter.tensor->grad())) {
      const at::Tensor gradient = want.Get(part.name);
      ASSERT_EQ(part.tensor.sizes(), gradient.sizes()) << part.name;
      const double scale = std::max(gradient.abs().max().item<double>(), 1e-2);
      EXPECT_LT((part.tensor.cpu() - gradient).abs().max().item<double>() / scale, 1e-4)
          << part.name;
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

// Under bfloat16 autocast numbers are rounded where PyTorch rounds them, and nowhere else.
class AutocastTest : public testing::TestWithParam<const char*> {
 protected:
  // What `ours` differ by (root mean square) is at most `share` of what the roundings do. Not
  // nothing: a sum in another order is now and then rounded to the other side.
  static void ExpectSmallBesideRounding(const std::vector<double>& ours, const Json& theirs,
                                        const Json& exact, double share) {
    ASSERT_EQ(ours.size(), theirs.size());
    double difference = 0, rounding = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      const double want = theirs[i];
      difference += std::pow(ours[i] / want - 1, 2);
      rounding += std::pow(exact[i].get<double>() / want - 1, 2);
    }
    EXPECT_LT(std::sqrt(difference / rounding), share);
  }
};

TEST_P(AutocastTest, RoundsWhereTorchDoes) {
  const std::string family = GetParam();
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family, at::kBFloat16);
  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(AllWeights(*model), {.compute = at::kBFloat16, .group = group.get()});
  TrainingLayerRunner runner(/*recompute=*/true, weights.hooks());
  model->set_layer_runner(&runner);
  const Json sequences = ReadTrainGolden("grads/cases.json")["families"][family]["sequences"];
  const Json golden = ReadTrainGolden("grads/autocast.json")["families"][family];

  weights.BeginStep();
  ASSERT_TRUE(weights.BeginPass(true).ok());
  std::vector<Ids> ids;
  std::vector<const Ids*> documents;
  std::vector<int64_t> places;
  for (const Json& sequence : sequences) ids.push_back(sequence.get<Ids>());
  int64_t begin = 0;
  for (const Ids& document : ids) {
    documents.push_back(&document);
    const auto length = static_cast<int64_t>(document.size());
    for (int64_t i = 0; i + 1 < length; ++i) places.push_back(begin + i);
    begin += length;
  }
  FlatBatch batch = MakeFlatBatch(documents, model->device());
  batch.input.logit_rows = IndexTensor(places, model->device());
  SequenceAttention attention(batch.lengths);
  const at::Tensor hidden = model->Hidden(batch.input, attention);
  const at::Tensor targets = batch.input.token_ids.index_select(0, batch.input.logit_rows + 1);
  const at::Tensor log_probs =
      LogProbs(hidden, {model->head(), model->config().logit_soft_cap}, targets, false).log_probs;
  (-log_probs.sum() / static_cast<double>(begin)).backward();
  ASSERT_TRUE(weights.EndPass().ok());

  std::vector<double> scores;
  for (int64_t i = 0; i < log_probs.size(0); ++i) scores.push_back(log_probs[i].item<double>());
  ExpectSmallBesideRounding(scores, golden["log_probs"], golden["exact_log_probs"], 0.6);

  const std::map<std::string, at::Tensor> gradients = Gradients(weights);
  std::map<std::string, double> norms;
  for (const model::Parameter& parameter : model->parameters().all()) {
    for (const NamedPart& part : Parts(parameter, gradients.at(parameter.parts[0].name))) {
      norms[part.name] = part.tensor.to(at::kDouble).norm().item<double>();
    }
  }
  std::vector<double> by_name;
  for (const auto& [name, norm] : norms) by_name.push_back(norm);
  // GPT-2's activation is a chain of operators there, each of which rounds.
  ExpectSmallBesideRounding(by_name, golden["gradients"], golden["exact_gradients"],
                            family == "gpt2" ? 0.9 : 0.6);
}

INSTANTIATE_TEST_SUITE_P(Families, AutocastTest,
                         testing::Values("gemma2", "gemma3_text", "gpt2", "llama", "llama_biased",
                                         "mistral", "qwen2", "qwen2_window", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

// What a backward pass computes anew has the random numbers of the forward pass.
TEST(DropoutTest, GradientsAreTheSameRecomputedOrKept) {
  const std::vector<SftRow> rows = {{{5, 6, 7, 8, 9}}, {{3, 4}}, {{9, 8, 7}}};
  const auto gradients = [&](bool recompute, uint64_t seed) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel("gpt2");
    const auto group = parallel::ProcessGroup::Single();
    TrainedWeights weights(AllWeights(*model), {.group = group.get()});
    TrainingLayerRunner runner(recompute, weights.hooks());
    model->set_layer_runner(&runner);
    model->set_dropout(true);
    SftRecipe recipe(model.get(), &rows, /*is_packed=*/false);
    at::manual_seed(seed);
    weights.BeginStep();
    for (const int64_t row : {0, 1}) {
      EXPECT_TRUE(recipe.BeginStep({.batches = {{row, 2}}}, *group).ok());
      EXPECT_TRUE(weights.BeginPass(row == 1).ok());
      EXPECT_TRUE(recipe.Pass({row, 2}, 1.0).ok());
      EXPECT_TRUE(weights.EndPass().ok());
    }
    std::vector<at::Tensor> gradients;
    for (const WeightShard& shard : weights.shards()) gradients.push_back(shard.gradient);
    return at::cat(gradients);
  };
  const at::Tensor kept = gradients(false, 1), recomputed = gradients(true, 1);
  EXPECT_LE((kept - recomputed).abs().max().item<double>(), 1e-6 * kept.abs().max().item<double>());
  // There is dropout.
  EXPECT_GT((kept - gradients(false, 2)).abs().max().item<double>(),
            1e-2 * kept.abs().max().item<double>());
}

// Models whose states do not fit into float16 between the layers, as some of Gemma's do not.
TEST(AutocastRangeTest, SumsBetweenLayersMayExceedFloat16) {
  const std::vector<SftRow> rows = {{{5, 6, 7, 8, 9}}};
  const auto loss = [&](at::ScalarType dtype, bool autocast) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel("mistral", dtype, autocast);
    for (const model::Parameter& parameter : model->parameters().all()) {
      const std::string& name = parameter.parts[0].name;
      if (name.ends_with("embed_tokens.weight")) parameter.tensor->sign_().mul_(6e4);
    }
    for (const model::LinearModule& module : model->parameters().linears()) {
      if (module.path.ends_with("down_proj")) module.weight->sign_().mul_(300);
    }
    const auto group = parallel::ProcessGroup::Single();
    TrainedWeights weights(AllWeights(*model),
                           {.compute = dtype, .autocast = autocast, .group = group.get()});
    SftRecipe recipe(model.get(), &rows, /*is_packed=*/false);
    return RunPass(recipe, {0}, weights, *group).value().loss;
  };
  const double exact = loss(at::kFloat, true);
  EXPECT_FALSE(std::isfinite(loss(at::kHalf, false)));
  EXPECT_NEAR(loss(at::kHalf, true), exact, 1e-2 * exact);
}

struct Curve {
  const char* golden;
  at::ScalarType dtype = at::kFloat;
};
class CurveTest : public testing::TestWithParam<Curve> {};

TEST_P(CurveTest, EqualsTheReference) {
  const at::ScalarType dtype = GetParam().dtype;
  const Json golden = ReadTrainGolden(absl::StrCat("sft/", GetParam().golden, ".json"));
  const Json& training = golden["training"];
  const std::string family = golden["model"];
  const bool is_bf16 = dtype == at::kBFloat16, is_fp16 = dtype == at::kHalf;
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family, dtype, !is_bf16);
  const auto texts = ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>();
  const bool packing = training.value("packing", false);
  const auto rows =
      MakeSftRows(texts, *LoadTinyTokenizer(family), training["max_seq_length"], packing);
  ASSERT_TRUE(rows.ok()) << rows.status();

  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(AllWeights(*model),
                         {.compute = dtype, .autocast = !is_bf16, .group = group.get()});
  TrainingLayerRunner runner(/*recompute=*/true, weights.hooks());
  model->set_layer_runner(&runner);
  SftRecipe recipe(model.get(), &*rows, packing);
  TrainerOptions options = OptionsOf(training, static_cast<int64_t>(rows->size()));
  options.scale_loss = is_fp16;
  options.first_loss_scale = 1024;  // with 65536 the first steps would overflow and be left out
  Trainer trainer(options, &recipe, &weights, group.get());
  const auto state = trainer.Run({}, QuietCallbacks());
  ASSERT_TRUE(state.ok()) << state.status();

  const Json& steps = golden["steps"];
  ASSERT_EQ(state->log.size(), steps.size());
  const bool is_rounded = is_bf16 || is_fp16;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Json &got = state->log[i], &want = steps[i];
    const auto near = [&](const char* name, double limit) {
      const double value = want[name];
      EXPECT_NEAR(got[name].get<double>(), value, limit * std::max(1.0, std::abs(value)))
          << name << " of step " << i + 1;
    };
    // Rounding has its way after some steps; losses stay together all the same. Float16 has eight
    // times the precision of bfloat16: for ten steps it does not show.
    const bool is_early = i < 10;
    near("loss", is_bf16 || (is_fp16 && !is_early) ? 2e-2 : 1e-3);
    near("learning_rate", 1e-9);
    if (!is_rounded || is_early) near("grad_norm", is_bf16 ? 0.15 : 1e-2);
    near("mean_token_accuracy", is_bf16 ? 0.2 : is_fp16 ? 0.1 : 1e-4);
    near("epoch", 1e-9);
    near("num_tokens", 0);
  }
  for (const model::Parameter& parameter : model->parameters().all()) {
    for (const NamedPart& part : Parts(parameter, *parameter.tensor)) {
      const double norm = golden["parameters"][part.name]["norm"];
      EXPECT_NEAR(part.tensor.to(at::kDouble).norm().item<double>(), norm,
                  (is_rounded ? 1e-2 : 1e-3) * norm)
          << part.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, CurveTest,
    testing::Values(Curve{"llama"}, Curve{"gpt2"}, Curve{"gemma3_text"}, Curve{"qwen3"},
                    Curve{"accumulation_warmup_cosine"}, Curve{"weight_decay"},
                    Curve{"max_grad_norm"}, Curve{"max_grad_norm_15"}, Curve{"packing"},
                    Curve{"short_last_batch"}, Curve{"epochs_1_5"}, Curve{"bf16", at::kBFloat16},
                    Curve{"llama", at::kHalf}, Curve{"gpt2", at::kHalf},
                    Curve{"accumulation_warmup_cosine", at::kHalf}),
    [](const auto& info) {
      return absl::StrCat(info.param.golden, info.param.dtype == at::kHalf ? "_fp16" : "");
    });

// SFT, but the forward passes of some steps, counted from 0, overflow.
class OverflowingRecipe : public SftRecipe {
 public:
  OverflowingRecipe(model::Decoder* model, const std::vector<SftRow>* rows, int64_t first,
                    int64_t last)
      : SftRecipe(model, rows, false), first_(first), last_(last) {}

  absl::StatusOr<PassReport> Pass(const std::vector<int64_t>& rows, double loss_scale) override {
    ASSIGN_OR_RETURN(PassReport report, SftRecipe::Pass(rows, loss_scale));
    if (first_ <= step_ && step_ <= last_) report.loss = NAN;
    ++step_;
    return report;
  }

 private:
  const int64_t first_, last_;
  int64_t step_ = 0;
};

class LossThatIsNotFiniteTest : public testing::Test {
 protected:
  // Six steps; those from `first` to `last` overflow.
  absl::StatusOr<TrainerState> Run(at::ScalarType dtype, int64_t first, int64_t last) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel("llama", dtype);
    const std::vector<SftRow> rows(6, {{5, 6, 7, 8}});
    const auto group = parallel::ProcessGroup::Single();
    TrainedWeights weights(AllWeights(*model), {.compute = dtype, .group = group.get()});
    OverflowingRecipe recipe(model.get(), &rows, first, last);
    TrainerOptions options = OptionsOf({{"learning_rate", 1e-4}, {"batch_size", 1}}, 6);
    options.scale_loss = dtype == at::kHalf;
    options.first_loss_scale = 4;
    Trainer trainer(options, &recipe, &weights, group.get());
    auto state = trainer.Run({}, QuietCallbacks());
    optimizer_steps_ = trainer.optimizer().steps();
    return state;
  }

  int64_t optimizer_steps_ = 0;
};

TEST_F(LossThatIsNotFiniteTest, FailsTheTrainingInFloat32) {
  EXPECT_EQ(Message(Run(at::kFloat, 1, 1).status()), "the loss of step 2 is not finite");
}

TEST_F(LossThatIsNotFiniteTest, LeavesTheStepOutInFloat16) {
  const auto state = Run(at::kHalf, 1, 2);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(optimizer_steps_, 4);
  EXPECT_EQ(state->loss_scale, 1);
  for (const size_t left_out : {1, 2}) {
    EXPECT_EQ(state->log[left_out]["loss"], state->log[0]["loss"]);
    EXPECT_EQ(state->log[left_out]["grad_norm"], 0);
  }
  const auto rate = [&](size_t step) { return state->log[step]["learning_rate"].get<double>(); };
  for (const size_t step : {1, 2, 3}) EXPECT_DOUBLE_EQ(rate(step), 1e-4 * 5 / 6) << step;
  EXPECT_DOUBLE_EQ(rate(4), 1e-4 * 4 / 6) << "the schedule waits, as that of HF's Trainer does";
  EXPECT_LT(state->log[5]["loss"], state->log[0]["loss"]);
  EXPECT_TRUE(std::isfinite(state->loss_sum));
}

TEST_F(LossThatIsNotFiniteTest, FailsATrainingThatNeverRecovers) {
  EXPECT_EQ(Message(Run(at::kHalf, 1, 5).status()), "the gradients of step 4 are not finite");
  EXPECT_EQ(optimizer_steps_, 1);
}

// As PyTorch's GradScaler does: half after a step that overflowed, twice after 2,000 that did not.
TEST(LossScaleTest, HalvesAtOverflowsAndGrowsWhenAllIsWell) {
  TrainerState state;
  state.loss_scale = kFirstLossScale;
  for (int step = 0; step < 1999; ++step) EXPECT_TRUE(UpdateLossScale(/*is_finite=*/true, state));
  EXPECT_EQ(state.loss_scale, kFirstLossScale);
  EXPECT_TRUE(UpdateLossScale(/*is_finite=*/false, state));
  EXPECT_EQ(state.loss_scale, kFirstLossScale / 2);
  for (int step = 0; step < 1999; ++step) EXPECT_TRUE(UpdateLossScale(/*is_finite=*/true, state));
  EXPECT_EQ(state.loss_scale, kFirstLossScale / 2);  // the overflow began the count anew
  EXPECT_TRUE(UpdateLossScale(/*is_finite=*/true, state));
  EXPECT_EQ(state.loss_scale, kFirstLossScale);
  for (int step = 0; step < 16; ++step) EXPECT_TRUE(UpdateLossScale(/*is_finite=*/false, state));
  EXPECT_EQ(state.loss_scale, 1);
  EXPECT_FALSE(UpdateLossScale(/*is_finite=*/false, state));
}

}  // namespace
}  // namespace flowmesh::train
