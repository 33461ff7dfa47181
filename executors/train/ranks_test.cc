// Training on several CPU ranks: one rank with batches of 8, two with 4 and four with 2 give the
// same losses and weights in every ZeRO stage, and a training that goes on from its state gives
// exactly what it would have given without a break.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
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

struct Setup {
  int zero_stage = 0;
  bool recompute = true;
  int64_t accumulation = 1;
  const char* family = "llama";
  at::ScalarType compute = at::kFloat;
};

// A model with all that trains it.
struct Training {
  Training(parallel::ProcessGroup& group, const Setup& setup, bool adapters = false)
      : group(group),
        model(LoadTinyModel(setup.family, setup.compute)),
        rows(MakeSftRows(ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>(),
                         *LoadTinyTokenizer(setup.family), 32, false)
                 .value()),
        weights(Tensors(adapters),
                {.compute = setup.compute, .zero_stage = setup.zero_stage, .group = &group}),
        layers(setup.recompute, weights.hooks()),
        recipe(model.get(), &rows, false) {
    model->set_layer_runner(&layers);
    TrainerOptions options =
        OptionsOf({{"learning_rate", 1e-3}}, static_cast<int64_t>(rows.size()));
    options.batches.batch_size = kGlobalBatch / group.world_size() / setup.accumulation;
    options.batches.accumulation = setup.accumulation;
    options.batches.max_steps = kSteps;
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
    for (const auto& named : *collected) {
      const at::Tensor wide = named.tensor.to(at::kDouble);
      absl::StrAppend(&report, wide.norm().item<double>(), " ", wide.sum().item<double>(), "\n");
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
  SftRecipe recipe;
  std::unique_ptr<Trainer> trainer;
};

template <int kStage, bool kRecompute, int kAccumulation>
std::string Sft(parallel::ProcessGroup& group) {
  return Training(group, {kStage, kRecompute, kAccumulation}).Run();
}

template <int kStage>
std::string Lora(parallel::ProcessGroup& group) {
  return Training(group, {kStage, /*recompute=*/false, 1, "gpt2"}, /*adapters=*/true).Run();
}

// Stops after half of the steps, goes on in another training, and compares with one that did not
// stop, to the last bit.
template <int kStage>
std::string Resume(parallel::ProcessGroup& group) {
  const Setup setup = {kStage, true, 1, "gpt2", kStage == 1 ? at::kBFloat16 : at::kFloat};
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
  Training second(group, setup);
  second.model->set_dropout(true);
  auto state = ReadState(folder, second.trainer->optimizer(), second.weights, group);
  if (!state.ok()) return state.status().ToString();
  const auto end = second.trainer->Run(*std::move(state), QuietCallbacks());
  if (!end.ok()) return end.status().ToString();
  return second.Report(*end) == expected ? "same" : "different";
}

template <int kStage>
std::string Dpo(parallel::ProcessGroup& group) {
  const auto tokenizer = LoadTinyTokenizer("llama");
  const Json golden = ReadTrainGolden("dpo/preferences.json");
  std::vector<PreferencePair> pairs;
  for (const Json& row : golden["preferences"]) {
    pairs.push_back(MakePair(row["prompt"], row["chosen"], row["rejected"], *tokenizer,
                             *tokenizer->eos_id(), {}));
  }
  Training training(group, {.zero_stage = kStage});
  DpoRecipe recipe(training.model.get(), &pairs, {});
  const absl::Status prepared =
      recipe.Prepare(2, training.weights, group, [](int64_t, int64_t) { return absl::OkStatus(); });
  if (!prepared.ok()) return prepared.ToString();
  TrainerOptions options = OptionsOf({{"learning_rate", 1e-4}}, static_cast<int64_t>(pairs.size()));
  options.batches.batch_size = kGlobalBatch / group.world_size();
  options.batches.max_steps = kSteps;
  Trainer trainer(options, &recipe, &training.weights, &group);
  const auto state = trainer.Run({}, QuietCallbacks());
  if (!state.ok()) return state.status().ToString();
  std::string report;
  for (const Json& line : state->log) {
    absl::StrAppend(&report, line["loss"].dump(), " ", line["rewards/margins"].dump(), "\n");
  }
  return group.rank() == 0 ? report : "";
}

template <std::string (*kBody)(parallel::ProcessGroup&)>
std::string OnRank(const parallel::GroupOptions& options) {
  at::set_num_threads(1);
  return parallel::WithGroup(options, kBody);
}

const parallel::RankFunctionRegistration kFunctions[] = {{"sft_0", OnRank<Sft<0, true, 1>>},
                                                         {"sft_1", OnRank<Sft<1, true, 1>>},
                                                         {"sft_2", OnRank<Sft<2, true, 1>>},
                                                         {"sft_3", OnRank<Sft<3, true, 1>>},
                                                         {"sft_2_kept", OnRank<Sft<2, false, 1>>},
                                                         {"sft_3_kept", OnRank<Sft<3, false, 1>>},
                                                         {"sft_0_windows", OnRank<Sft<0, true, 2>>},
                                                         {"sft_2_windows", OnRank<Sft<2, true, 2>>},
                                                         {"lora_0", OnRank<Lora<0>>},
                                                         {"lora_3", OnRank<Lora<3>>},
                                                         {"resume_0", OnRank<Resume<0>>},
                                                         {"resume_1", OnRank<Resume<1>>},
                                                         {"resume_3", OnRank<Resume<3>>},
                                                         {"dpo_0", OnRank<Dpo<0>>},
                                                         {"dpo_3", OnRank<Dpo<3>>}};

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

void ExpectNear(const std::string& got, const std::string& want, const std::string& what) {
  const std::vector<double> a = Numbers(got), b = Numbers(want);
  ASSERT_GE(b.size(), 2 * static_cast<size_t>(kSteps)) << want;
  ASSERT_EQ(a.size(), b.size()) << what << ": " << got;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], 1e-4 * std::max(1.0, std::abs(b[i]))) << what << ", number " << i;
  }
}

TEST(RanksTest, EveryStageGivesWhatOneRankGives) {
  const std::string alone = ReportOf("sft_0", 1);
  for (const char* function : {"sft_0", "sft_1", "sft_2", "sft_3", "sft_2_kept", "sft_3_kept"}) {
    ExpectNear(ReportOf(function, 2), alone, absl::StrCat(function, " on 2 ranks"));
  }
  for (const char* function : {"sft_0", "sft_2", "sft_3"}) {
    ExpectNear(ReportOf(function, 4), alone, absl::StrCat(function, " on 4 ranks"));
  }
}

TEST(RanksTest, SeveralPassesMakeOneStep) {
  const std::string alone = ReportOf("sft_0_windows", 1);
  for (const char* function : {"sft_0_windows", "sft_2_windows"}) {
    ExpectNear(ReportOf(function, 2), alone, function);
  }
}

TEST(RanksTest, AdaptersToo) {
  const std::string alone = ReportOf("lora_0", 1);
  ExpectNear(ReportOf("lora_0", 2), alone, "stage 0");
  ExpectNear(ReportOf("lora_3", 2), alone, "stage 3");
}

TEST(RanksTest, DpoToo) {
  const std::string alone = ReportOf("dpo_0", 1);
  for (const char* function : {"dpo_0", "dpo_3"})
    ExpectNear(ReportOf(function, 2), alone, function);
}

TEST(RanksTest, AStateIsGoneOnFromToTheLastBit) {
  for (const char* function : {"resume_0", "resume_1", "resume_3"}) {
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
