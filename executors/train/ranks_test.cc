// Training on several CPU ranks: one rank with batches of 8, two with 4 and four with 2 give the
// same losses and weights in every ZeRO stage, and a training that goes on from its state gives
// exactly what it would have given without a break. In float16, which is for GPUs, too.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/device/test_device.h"
#include "executors/parallel/test_ranks.h"
#include "executors/train/dpo.h"
#include "executors/train/lora.h"
#include "executors/train/model_weights.h"
#include "executors/train/recompute.h"
#include "executors/train/sft.h"
#include "executors/train/state.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

constexpr int64_t kGlobalBatch = 8;
constexpr int64_t kSteps = 6;
// Of trainings in fp16: with the usual 65536 the tiny models' first steps overflow.
constexpr double kHalfLossScale = 1024;

struct Setup {
  int zero_stage = 0;
  bool recompute = true;
  int64_t accumulation = 1;
  const char* family = "llama";
  at::ScalarType compute = at::kFloat;
  int64_t overflow_at = -1;  // of the steps, from 0; fp16
  int64_t logging_steps = 1;
  bool short_rows = false;  // three of four have one token, and with it nothing to predict
};

// SFT, but in one step the last rank's gradients overflow, as with a loss scale far too large.
class OverflowingRecipe : public SftRecipe {
 public:
  OverflowingRecipe(model::Decoder* model, const std::vector<SftRow>* rows, int64_t overflow_at)
      : SftRecipe(model, rows, false), overflow_at_(overflow_at) {}

  absl::Status BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) override {
    is_overflow_ = step_++ == overflow_at_ && group.rank() == group.world_size() - 1;
    return SftRecipe::BeginStep(batches, group);
  }
  absl::StatusOr<PassReport> Pass(const std::vector<int64_t>& rows, double loss_scale) override {
    return SftRecipe::Pass(rows, is_overflow_ ? 1e12 : loss_scale);
  }

 private:
  const int64_t overflow_at_;
  int64_t step_ = 0;
  bool is_overflow_ = false;
};

// A model with all that trains it.
struct Training {
  Training(parallel::ProcessGroup& group, const Setup& setup, bool adapters = false)
      : group(group),
        model(adapters
                  ? LoadTinyModel(setup.family, {.dtype = setup.compute, .autocast = true})
                  : LoadTinyModel(setup.family, setup.compute, setup.compute != at::kBFloat16)),
        rows(MakeSftRows(ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>(),
                         *LoadTinyTokenizer(setup.family), 32, false)
                 .value()),
        weights(Tensors(adapters), {.compute = adapters ? at::kFloat : setup.compute,
                                    .autocast = adapters || setup.compute != at::kBFloat16,
                                    .zero_stage = setup.zero_stage,
                                    .group = &group}),
        layers(setup.recompute, weights.hooks()),
        recipe(model.get(), &rows, setup.overflow_at) {
    model->set_layer_runner(&layers);
    for (size_t i = 0; setup.short_rows && i < rows.size(); ++i) {
      if (i % 4 != 0) rows[i][0].resize(1);
    }
    TrainerOptions options =
        OptionsOf({{"learning_rate", 1e-3}}, static_cast<int64_t>(rows.size()));
    options.batches.batch_size = kGlobalBatch / group.world_size() / setup.accumulation;
    options.batches.accumulation = setup.accumulation;
    options.batches.max_steps = kSteps;
    options.logging_steps = setup.logging_steps;
    options.scale_loss = setup.compute == at::kHalf;
    options.first_loss_scale = kHalfLossScale;
    trainer = std::make_unique<Trainer>(options, &recipe, &weights, &group);
  }

  std::vector<TrainedTensor> Tensors(bool adapters) const {
    if (!adapters) return AllWeights(*model);
    const model::LoraConfig config = {.dropout = 0, .target_modules = {"all-linear"}};
    return TrainAdapter(MakeAdapter(*model, config, 7).value(), *model);
  }

  // Losses and norms of each step, then the sum and norm of each weight: on rank 0.
  std::string Report(const TrainerState& state) {
    std::string report;
    for (const Json& line : state.log) {
      absl::StrAppend(&report, line["loss"].dump(), " ", line["grad_norm"].dump(), " ",
                      line["mean_token_accuracy"].dump(), "\n");
    }
    const auto collected = weights.Collect([](WeightShard& s) { return s.master; });
    if (!collected.ok()) return collected.status().ToString();
    std::map<std::string, at::Tensor> by_name;
    for (const auto& named : *collected) by_name[named.name] = named.tensor.to(at::kDouble);
    for (const auto& [name, tensor] : by_name) {
      absl::StrAppend(&report, tensor.norm().item<double>(), " ", tensor.sum().item<double>(),
                      "\n");
    }
    return group.rank() == 0 ? report : "";
  }

  std::string Run() {
    const auto state = trainer->Run({}, QuietCallbacks());
    return state.ok() ? Report(*state) : state.status().ToString();
  }

  parallel::ProcessGroup& group;
  std::unique_ptr<model::Decoder> model;
  std::vector<SftRow> rows;
  TrainedWeights weights;
  TrainingLayerRunner layers;
  OverflowingRecipe recipe;
  std::unique_ptr<Trainer> trainer;
};

template <int kStage, bool kRecompute, int kAccumulation>
std::string Sft(parallel::ProcessGroup& group) {
  return Training(group, {kStage, kRecompute, kAccumulation}).Run();
}

// Micro-batches of one row, of which most predict nothing on one rank or on all.
template <int kStage>
std::string ShortRows(parallel::ProcessGroup& group) {
  return Training(group, {.zero_stage = kStage, .accumulation = 4, .short_rows = true}).Run();
}

template <int kStage, at::ScalarType kCompute = at::kFloat>
std::string Lora(parallel::ProcessGroup& group) {
  const Setup setup = {kStage, /*recompute=*/false, 1, "gpt2", kCompute};
  return Training(group, setup, /*adapters=*/true).Run();
}

// In fp16 and without an overflow: what fp32 gives but for rounding.
template <int kStage, bool kRecompute>
std::string Half(parallel::ProcessGroup& group) {
  return Training(group, {kStage, kRecompute, 1, "llama", at::kHalf}).Run();
}

// In fp16, where the third step overflows on the last rank. What each step left on this rank, as
// words: `kept` or `changed` weights and moments, the loss scale, and the optimiser's steps.
template <int kStage>
std::string Overflow(parallel::ProcessGroup& group) {
  Training training(group, {kStage, true, 1, "llama", at::kHalf, /*overflow_at=*/2});
  const auto parts = [&] {
    std::vector<at::Tensor> parts;
    for (const WeightShard& shard : training.weights.shards()) {
      for (const at::Tensor& part :
           {shard.master, shard.compute, shard.exp_avg, shard.exp_avg_sq}) {
        parts.push_back(part.clone());
      }
    }
    return parts;
  };
  const auto same = [](const at::Tensor& a, const at::Tensor& b) { return at::equal(a, b); };
  std::vector<at::Tensor> before = parts();
  std::string report;
  TrainerCallbacks callbacks = QuietCallbacks();
  callbacks.wants_checkpoint = [&](const TrainerState& state, int64_t) {
    std::vector<at::Tensor> now = parts();
    const bool is_kept = std::equal(now.begin(), now.end(), before.begin(), same);
    absl::StrAppend(&report, is_kept ? "kept " : "changed ", state.loss_scale, " ",
                    training.trainer->optimizer().steps(), "\n");
    before = std::move(now);
    return false;
  };
  const auto state = training.trainer->Run({}, callbacks);
  return state.ok() ? report : state.status().ToString();
}

// A gradient overflows in fp16 on each of two ranks, which from stage 1 on only rank 0 sees; in a
// second step it does not, and its sum need not fit into fp16. Whether the steps were finite.
template <int kStage>
std::string OverflowingShard(parallel::ProcessGroup& group) {
  at::Tensor tensor = at::ones({64}, device::TestDevice());
  TrainedWeights weights({{"w", &tensor}},
                         {.compute = at::kHalf, .zero_stage = kStage, .group = &group});
  AdamW optimizer({}, &weights);
  std::string report;
  for (const double gradient : {70000.0, 40000.0}) {
    weights.BeginStep();
    if (const absl::Status begun = weights.BeginPass(true); !begun.ok()) return begun.ToString();
    tensor.mutable_grad()[0] = gradient;
    if (const absl::Status ended = weights.EndPass(); !ended.ok()) return ended.ToString();
    const auto step = optimizer.Step(/*learning_rate=*/1e-3, /*loss_scale=*/1024);
    if (!step.ok()) return step.status().ToString();
    absl::StrAppend(&report, step->is_finite ? "finite " : "not finite ");
  }
  return report;
}

// Two passes, with a gradient of 256 and then of 1, which a bf16 sum of them would lose: what rank
// 0 has at the end.
template <int kStage>
std::string SmallBesideLarge(parallel::ProcessGroup& group) {
  at::Tensor tensor = at::ones({64}, device::TestDevice());
  TrainedWeights weights({{"w", &tensor}},
                         {.compute = at::kBFloat16, .zero_stage = kStage, .group = &group});
  weights.BeginStep();
  for (const double gradient : {256.0, 1.0}) {
    if (const absl::Status begun = weights.BeginPass(gradient == 1); !begun.ok())
      return begun.ToString();
    tensor.mutable_grad()[0] = gradient;
    if (const absl::Status ended = weights.EndPass(); !ended.ok()) return ended.ToString();
  }
  return absl::StrCat(weights.shards()[0].gradient[0].item<double>());
}

// Stops after half of the steps, goes on in another training, and compares with one that did not
// stop, to the last bit.
template <int kStage>
std::string Resume(parallel::ProcessGroup& group) {
  const at::ScalarType compute = kStage == 1 ? at::kBFloat16 : kStage == 2 ? at::kHalf : at::kFloat;
  // In fp16 a step of the first half overflows: the loss scale has to go on as well.
  // And the line that the middle of the training is in is one of both halves.
  const Setup setup = {.zero_stage = kStage,
                       .family = "gpt2",
                       .compute = compute,
                       .overflow_at = compute == at::kHalf ? 1 : -1,
                       .logging_steps = 2};
  // Dropout on: the random numbers have to go on too.
  const auto seed = [&] { at::manual_seed(42 + group.rank()); };
  seed();
  Training whole(group, setup);
  whole.model->set_dropout(true);
  const std::string expected = whole.Run();

  const std::filesystem::path folder =
      std::filesystem::path(std::getenv("FLOWMESH_TEST_STATE")) / absl::StrCat("stage", kStage);
  seed();
  Training first(group, setup);
  first.model->set_dropout(true);
  TrainerCallbacks callbacks = QuietCallbacks();
  callbacks.wants_checkpoint = [](const TrainerState& state, int64_t) {
    return state.step == kSteps / 2;
  };
  bool is_saved = false;
  callbacks.save_checkpoint = [&](const TrainerState& state) -> absl::Status {
    is_saved = true;
    RETURN_IF_ERROR(MakeDirectories(folder));
    RETURN_IF_ERROR(WriteState(folder, state, first.trainer->optimizer(), first.weights, group));
    return group.Barrier();  // before anybody reads it
  };
  callbacks.is_stopped = [&] { return is_saved; };
  const auto stopped = first.trainer->Run({}, callbacks);
  if (!absl::IsCancelled(stopped.status())) return "the first half was not stopped";

  at::manual_seed(7);
  Setup rest = setup;
  rest.overflow_at = -1;
  Training second(group, rest);
  second.model->set_dropout(true);
  auto state = ReadState(folder, second.trainer->optimizer(), second.weights, group);
  if (!state.ok()) return state.status().ToString();
  const auto end = second.trainer->Run(*std::move(state), QuietCallbacks());
  if (!end.ok()) return end.status().ToString();
  if (compute == at::kHalf &&
      (end->loss_scale != kHalfLossScale / 2 || end->good_steps != kSteps - 2)) {
    return absl::StrCat("a loss scale of ", end->loss_scale, " for ", end->good_steps, " steps");
  }
  return second.Report(*end) == expected ? "same" : "different";
}

// With kEmpty: three of four pairs are of empty texts, and micro-batches of one row.
template <int kStage, at::ScalarType kCompute = at::kFloat, bool kEmpty = false>
std::string Dpo(parallel::ProcessGroup& group) {
  const auto tokenizer = LoadTinyTokenizer("llama");
  const Json golden = ReadTrainGolden("dpo/preferences.json");
  std::vector<PreferencePair> pairs;
  for (const Json& row : golden["preferences"]) {
    pairs.push_back(MakePair(row["prompt"], row["chosen"], row["rejected"], *tokenizer,
                             *tokenizer->eos_id(), {}));
    if (kEmpty && pairs.size() % 4 != 1) {
      pairs.back() = MakePair("", "", "", *tokenizer, *tokenizer->eos_id(), {});
    }
  }
  Training training(group, {.zero_stage = kStage, .compute = kCompute});
  DpoRecipe recipe(training.model.get(), &pairs, {});
  const absl::Status prepared = recipe.Prepare(kEmpty ? 1 : 2, training.weights, group,
                                               [](int64_t, int64_t) { return absl::OkStatus(); });
  if (!prepared.ok()) return prepared.ToString();
  TrainerOptions options = OptionsOf({{"learning_rate", 1e-4}}, static_cast<int64_t>(pairs.size()));
  options.batches.accumulation = kEmpty ? 4 : 1;
  options.batches.batch_size = kGlobalBatch / group.world_size() / options.batches.accumulation;
  options.batches.max_steps = kSteps;
  options.scale_loss = kCompute == at::kHalf;
  options.first_loss_scale = kHalfLossScale;
  Trainer trainer(options, &recipe, &training.weights, &group);
  const auto state = trainer.Run({}, QuietCallbacks());
  if (!state.ok()) return state.status().ToString();
  std::string report;
  for (const Json& line : state->log) {
    absl::StrAppend(&report, line["loss"].dump(), " ", line["rewards/margins"].dump(), "\n");
  }
  return group.rank() == 0 ? report : "";
}

// Strikes its own process when a model's second layer begins.
class StrikingRunner : public model::LayerRunner {
 public:
  StrikingRunner(model::LayerRunner* runner, int signal) : runner_(runner), signal_(signal) {}

  at::Tensor Run(int index, const Layer& layer, const at::Tensor& x) override {
    if (index == 1) ::raise(signal_);
    return runner_->Run(index, layer, x);
  }

 private:
  model::LayerRunner* const runner_;
  const int signal_;
};

// Notes how many layers had their weights while one computed.
class CountingRunner : public model::LayerRunner {
 public:
  CountingRunner(model::LayerRunner* runner, const model::Decoder& model)
      : runner_(runner), model_(model) {}

  at::Tensor Run(int index, const Layer& layer, const at::Tensor& x) override {
    const Layer counted = [this, layer](const at::Tensor& in) {
      std::set<int> whole;
      for (const TrainedTensor& weight : AllWeights(model_)) {
        if (weight.unit >= 0 && weight.tensor->storage().nbytes() > 0) whole.insert(weight.unit);
      }
      most_ = std::max(most_, whole.size());
      return layer(in);
    };
    return runner_->Run(index, counted, x);
  }
  size_t most() const { return most_; }

 private:
  model::LayerRunner* const runner_;
  const model::Decoder& model_;
  size_t most_ = 0;
};

// The third stage, of a model of six layers: how many are whole at a time when DPO is prepared, and
// in training.
std::string WholeLayers(parallel::ProcessGroup& group) {
  Training training(group, {.zero_stage = 3, .family = "gemma3_text"});
  CountingRunner preparing(&training.layers, *training.model);
  training.model->set_layer_runner(&preparing);
  const std::vector<PreferencePair> pairs(4, {{{1, 2, 3}, 1}, {{1, 4}, 1}});
  const absl::Status prepared =
      DpoRecipe(training.model.get(), &pairs, {})
          .Prepare(2, training.weights, group, [](int64_t, int64_t) { return absl::OkStatus(); });
  if (!prepared.ok()) return prepared.ToString();
  CountingRunner running(&training.layers, *training.model);
  training.model->set_layer_runner(&running);
  const auto state = training.trainer->Run({}, QuietCallbacks());
  if (!state.ok()) return state.status().ToString();
  return absl::StrCat(preparing.most(), " and ", running.most());
}

// The third stage, where the last rank is killed or stopped in a pass of the training, or of what
// DPO prepares.
template <int kSignal, bool kPrepares>
std::string Struck(parallel::ProcessGroup& group) {
  Training training(group, {.zero_stage = 3});
  StrikingRunner runner(&training.layers, kSignal);
  if (group.rank() == group.world_size() - 1) training.model->set_layer_runner(&runner);
  if (!kPrepares) return training.Run();
  const std::vector<PreferencePair> pairs(4, {{{1, 2, 3}, 1}, {{1, 4}, 1}});
  return DpoRecipe(training.model.get(), &pairs, {})
      .Prepare(2, training.weights, group, [](int64_t, int64_t) { return absl::OkStatus(); })
      .ToString();
}

template <std::string (*kBody)(parallel::ProcessGroup&)>
std::string OnRank(const parallel::GroupOptions& options) {
  at::set_num_threads(1);
  return parallel::WithGroup(options, kBody);
}

const parallel::RankFunctionRegistration kFunctions[] = {
    {"sft_0", OnRank<Sft<0, true, 1>>},
    {"sft_1", OnRank<Sft<1, true, 1>>},
    {"sft_2", OnRank<Sft<2, true, 1>>},
    {"sft_3", OnRank<Sft<3, true, 1>>},
    {"sft_2_kept", OnRank<Sft<2, false, 1>>},
    {"sft_3_kept", OnRank<Sft<3, false, 1>>},
    {"sft_0_windows", OnRank<Sft<0, true, 2>>},
    {"sft_2_windows", OnRank<Sft<2, true, 2>>},
    {"lora_0", OnRank<Lora<0>>},
    {"lora_3", OnRank<Lora<3>>},
    {"lora_1", OnRank<Lora<1>>},
    {"lora_2", OnRank<Lora<2>>},
    {"short_0", OnRank<ShortRows<0>>},
    {"short_2", OnRank<ShortRows<2>>},
    {"short_3", OnRank<ShortRows<3>>},
    {"whole_layers", OnRank<WholeLayers>},
    {"killed", OnRank<Struck<SIGKILL, false>>},
    {"stopped", OnRank<Struck<SIGSTOP, false>>},
    {"dpo_killed", OnRank<Struck<SIGKILL, true>>},
    {"dpo_stopped", OnRank<Struck<SIGSTOP, true>>},
    {"resume_0", OnRank<Resume<0>>},
    {"resume_1", OnRank<Resume<1>>},
    {"resume_2", OnRank<Resume<2>>},
    {"resume_3", OnRank<Resume<3>>},
    {"dpo_0", OnRank<Dpo<0>>},
    {"dpo_1", OnRank<Dpo<1>>},
    {"dpo_2", OnRank<Dpo<2>>},
    {"dpo_3", OnRank<Dpo<3>>},
    {"empty_0", OnRank<Dpo<0, at::kFloat, true>>},
    {"empty_2", OnRank<Dpo<2, at::kFloat, true>>},
    {"empty_3", OnRank<Dpo<3, at::kFloat, true>>},
    {"lora_half", OnRank<Lora<0, at::kHalf>>},
    {"dpo_half", OnRank<Dpo<0, at::kHalf>>},
    {"half_0", OnRank<Half<0, true>>},
    {"half_0_kept", OnRank<Half<0, false>>},
    {"half_2", OnRank<Half<2, true>>},
    {"half_3", OnRank<Half<3, true>>},
    {"overflow_0", OnRank<Overflow<0>>},
    {"overflow_1", OnRank<Overflow<1>>},
    {"overflow_2", OnRank<Overflow<2>>},
    {"overflow_3", OnRank<Overflow<3>>},
    {"small_0", OnRank<SmallBesideLarge<0>>},
    {"small_1", OnRank<SmallBesideLarge<1>>},
    {"small_2", OnRank<SmallBesideLarge<2>>},
    {"small_3", OnRank<SmallBesideLarge<3>>},
    {"shard_0", OnRank<OverflowingShard<0>>},
    {"shard_1", OnRank<OverflowingShard<1>>},
    {"shard_2", OnRank<OverflowingShard<2>>},
    {"shard_3", OnRank<OverflowingShard<3>>}};

std::string ReportOf(const std::string& function, int ranks) {
  const auto ends = parallel::RunRanks(function, {.world_size = ranks});
  for (const auto& [rank, end] : ends) EXPECT_TRUE(end.status.ok()) << rank << end.output;
  return ends.at(0).output;
}

std::vector<double> Numbers(const std::string& report) {
  std::vector<double> numbers;
  std::istringstream stream(report);
  for (double number; stream >> number;) numbers.push_back(number);
  return numbers;
}

void ExpectNear(const std::string& got, const std::string& want, const std::string& what,
                double tolerance = 1e-4) {
  const std::vector<double> a = Numbers(got), b = Numbers(want);
  ASSERT_GE(b.size(), 2 * static_cast<size_t>(kSteps)) << want;
  ASSERT_EQ(a.size(), b.size()) << what << ": " << got;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], tolerance * std::max(1.0, std::abs(b[i]))) << what << ", number " << i;
  }
}

class RanksTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!parallel::HasDevices(2)) GTEST_SKIP() << "needs 2 GPUs";
  }
};

TEST_F(RanksTest, EveryStageGivesWhatOneRankGives) {
  const std::string alone = ReportOf("sft_0", 1);
  for (const char* function : {"sft_0", "sft_1", "sft_2", "sft_3", "sft_2_kept", "sft_3_kept"}) {
    ExpectNear(ReportOf(function, 2), alone, absl::StrCat(function, " on 2 ranks"));
  }
  if (!parallel::HasDevices(4)) GTEST_SKIP() << "needs 4 GPUs";
  for (const char* function : {"sft_0", "sft_1", "sft_2", "sft_3"}) {
    ExpectNear(ReportOf(function, 4), alone, absl::StrCat(function, " on 4 ranks"));
  }
}

TEST_F(RanksTest, SeveralPassesMakeOneStep) {
  const std::string alone = ReportOf("sft_0_windows", 1);
  for (const char* function : {"sft_0_windows", "sft_2_windows"}) {
    ExpectNear(ReportOf(function, 2), alone, function);
  }
}

TEST_F(RanksTest, AdaptersToo) {
  const std::string alone = ReportOf("lora_0", 1);
  for (const char* function : {"lora_0", "lora_1", "lora_2", "lora_3"})
    ExpectNear(ReportOf(function, 2), alone, function);
}

TEST_F(RanksTest, DpoToo) {
  const std::string alone = ReportOf("dpo_0", 1);
  for (const char* function : {"dpo_0", "dpo_1", "dpo_2", "dpo_3"})
    ExpectNear(ReportOf(function, 2), alone, function);
}

// The layers' collectives belong to passes, so a rank must run those that have nothing to predict.
TEST_F(RanksTest, RowsThatPredictNothingKeepRanksInStep) {
  const std::string alone = ReportOf("short_0", 1);
  for (const char* function : {"short_0", "short_2", "short_3"})
    ExpectNear(ReportOf(function, 2), alone, function);
}

TEST_F(RanksTest, SoDoPairsOfEmptyTexts) {
  const std::string alone = ReportOf("empty_0", 1);
  for (const char* function : {"empty_0", "empty_2", "empty_3"})
    ExpectNear(ReportOf(function, 2), alone, function);
}

// The one that computes, and the next one.
TEST_F(RanksTest, InTheThirdStageTwoLayersAreWholeAtATime) {
  EXPECT_EQ(ReportOf("whole_layers", 2), "2 and 2");
}

TEST_F(RanksTest, ARankLostInAPassIsNamedWhereWeightsAreShared) {
  for (const char* function : {"killed", "stopped", "dpo_killed", "dpo_stopped"}) {
    const parallel::RanksToRun ranks = {
        .world_size = 2, .timeout = absl::Seconds(3), .endless = {1}};
    const parallel::RankEnd end = parallel::RunRanks(function, ranks).at(0);
    EXPECT_TRUE(end.status.ok()) << function << ": " << end.status.ToString();
    EXPECT_THAT(end.output, testing::HasSubstr("rank 1 is gone or stopped (last heard of at "))
        << function;
  }
}

// Float16 rounds to one part in 2048. In six steps that moves losses by less than twice as much;
// norms of gradients, and sums of weights, in which much cancels out, by more.
TEST_F(RanksTest, HalvesGiveWhatFloat32Gives) {
  const std::string alone = ReportOf("sft_0", 1);
  const auto expect_near = [&](const char* function, int ranks) {
    const std::string what = absl::StrCat(function, " on ", ranks),
                      report = ReportOf(function, ranks);
    ExpectNear(report, alone, what, 2e-2);
    const std::vector<double> got = Numbers(report), want = Numbers(alone);
    for (size_t i = 0; i < 3 * static_cast<size_t>(kSteps) && i < got.size(); i += 3) {
      EXPECT_NEAR(got[i], want[i], 1e-3 * want[i]) << what << ", loss of step " << i / 3 + 1;
    }
  };
  expect_near("half_0", 1);
  for (const char* function : {"half_0", "half_0_kept", "half_2", "half_3"})
    expect_near(function, 2);
}

TEST_F(RanksTest, HalvesWithAdaptersAndInDpoToo) {
  ExpectNear(ReportOf("lora_half", 2), ReportOf("lora_0", 1), "adapters", 2e-2);
  ExpectNear(ReportOf("dpo_half", 2), ReportOf("dpo_0", 1), "DPO", 2e-2);
}

TEST_F(RanksTest, AStepThatOverflowsOnOneRankIsLeftOutOnAll) {
  const std::string expected =
      "changed 1024 1\nchanged 1024 2\nkept 512 2\nchanged 512 3\nchanged 512 4\nchanged 512 5\n";
  for (const char* function : {"overflow_0", "overflow_1", "overflow_2", "overflow_3"}) {
    for (const int ranks : {1, 2}) {
      for (const auto& [rank, end] : parallel::RunRanks(function, {.world_size = ranks})) {
        EXPECT_EQ(end.output, expected) << function << ", rank " << rank << " of " << ranks;
      }
    }
  }
}

TEST_F(RanksTest, AStepThatOverflowsInOneShardIsLeftOutOnAllRanks) {
  for (const char* function : {"shard_0", "shard_1", "shard_2", "shard_3"}) {
    for (const auto& [rank, end] : parallel::RunRanks(function, {.world_size = 2})) {
      EXPECT_EQ(end.output, "not finite finite ") << function << ", rank " << rank;
    }
  }
}

TEST_F(RanksTest, GradientsOfPassesAndRanksAddUpInFloat32) {
  for (const char* function : {"small_0", "small_1", "small_2", "small_3"})
    EXPECT_EQ(ReportOf(function, 2), "514") << function;
}

TEST_F(RanksTest, AStateIsGoneOnFromToTheLastBit) {
  for (const char* function : {"resume_0", "resume_1", "resume_2", "resume_3"}) {
    for (const int ranks : {1, 2}) {
      const TempDir folder;
      ::setenv("FLOWMESH_TEST_STATE", folder.path().c_str(), 1);
      const auto ends = parallel::RunRanks(function, {.world_size = ranks});
      EXPECT_EQ(ends.at(0).output, "same") << function << " on " << ranks;
    }
  }
}

}  // namespace
}  // namespace flowmesh::train
