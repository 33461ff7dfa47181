// PPO against the reference loop and TRL, fed with the responses, scores and row orders that were
// recorded (tests/goldens/train/ppo); and on two ranks.
#include "executors/train/ppo.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "executors/device/test_device.h"
#include "executors/model/model_folder.h"
#include "executors/model/model_goldens.h"
#include "executors/parallel/test_ranks.h"
#include "executors/train/recompute.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

using ::testing::HasSubstr;

constexpr text::TokenId kEos = 2;

ValueHead GoldenHead() {
  const model::GoldenTensors tensors(TrainGolden("ppo") / "value_head.safetensors");
  ValueHead head;
  head.weight = tensors.Get("weight").to(device::TestDevice());
  head.bias = tensors.Get("bias").to(device::TestDevice());
  return head;
}

// A policy with all that PPO trains it with.
struct Rig {
  explicit Rig(const std::string& family, parallel::ProcessGroup& group, int zero_stage = 0,
               at::ScalarType compute = at::kFloat)
      : policy(LoadTinyModel(family, compute)),
        reference(LoadTinyModel(family, {.dtype = compute, .autocast = true})),
        head(GoldenHead()),
        weights(PolicyWeights(*policy, head),
                {.compute = compute, .zero_stage = zero_stage, .group = &group}),
        runner(/*recompute=*/true, weights.hooks()) {}

  PpoModels models() { return {policy.get(), &head, &runner, &weights, reference.get()}; }

  std::unique_ptr<model::Decoder> policy, reference;
  ValueHead head;
  TrainedWeights weights;
  TrainingLayerRunner runner;
};

PpoOptions OptionsOfGolden(const Json& golden) {
  const Json& training = golden["training"];
  PpoOptions options;
  options.batches.batch_size = training["per_device_train_batch_size"];
  options.batches.accumulation = training["gradient_accumulation_steps"];
  options.steps = training["steps"].get<int64_t>();
  options.mini_batches = training["num_mini_batches"];
  options.ppo_epochs = training["ppo_epochs"];
  options.schedule.learning_rate = training["learning_rate"];
  options.temperature = golden["generation"]["temperature"];
  options.eos_ids = {kEos};
  options.missing_eos_penalty = training.value("missing_eos_penalty", 0.0);
  options.estimate = {.kl_coef = training["kl_coef"],
                      .gamma = training.value("gamma", 1.0),
                      .whiten_rewards = training.value("whiten_rewards", false)};
  options.cliprange = training.value("cliprange", options.cliprange);
  options.vf_coef = training.value("vf_coef", options.vf_coef);
  return options;
}

std::vector<Ids> QueriesOfGolden(const Json& golden) {
  const auto tokenizer = LoadTinyTokenizer(golden["model"]);
  std::vector<Ids> queries;
  for (const Json& prompt : golden["prompts"]) {
    queries.push_back(tokenizer->Encode(prompt.get<std::string>(), /*add_special_tokens=*/true));
  }
  return queries;
}

// Gives what was recorded, to the queries for which it was.
PpoSeams RecordedSeams(const Json& golden) {
  const Json& updates = golden["updates"];
  auto current = std::make_shared<size_t>(0);
  PpoSeams seams;
  seams.generate = [&updates, current](const std::vector<const Ids*>& queries, int64_t update) {
    *current = static_cast<size_t>(update);
    const Json& recorded = updates[*current];
    EXPECT_EQ(queries.size(), recorded["queries"].size());
    for (size_t i = 0; i < queries.size(); ++i) {
      EXPECT_EQ(*queries[i], recorded["queries"][i].get<Ids>());
    }
    return recorded["responses"].get<std::vector<Ids>>();
  };
  if (!golden["reward_model"].is_null()) {
    seams.score = [&updates, current](const std::vector<const Ids*>&, const std::vector<Ids>&) {
      return updates[*current]["scores"].get<std::vector<double>>();
    };
  }
  seams.order = [&updates](int64_t, int64_t update, int64_t pass) {
    return updates[static_cast<size_t>(update)]["orders"][static_cast<size_t>(pass)]
        .get<std::vector<int64_t>>();
  };
  return seams;
}

void ExpectNear(const Json& got, const Json& want, const std::string& name, double tolerance,
                size_t update) {
  const double value = want[name];
  EXPECT_NEAR(got[name].get<double>(), value, tolerance * std::max(1.0, std::abs(value)))
      << name << " of update " << update + 1;
}

class PpoGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(PpoGoldenTest, EqualsTheReference) {
  const Json golden = ReadTrainGolden(std::string("ppo/") + GetParam() + ".json");
  const auto group = parallel::ProcessGroup::Single();
  Rig rig(golden["model"], *group);
  const std::vector<Ids> queries = QueriesOfGolden(golden);
  PpoTrainer trainer(OptionsOfGolden(golden), rig.models(), RecordedSeams(golden), &queries,
                     group.get());
  const auto state = trainer.Run({}, QuietCallbacks());
  ASSERT_TRUE(state.ok()) << state.status();

  const Json& updates = golden["updates"];
  ASSERT_EQ(state->log.size(), updates.size());
  for (size_t i = 0; i < updates.size(); ++i) {
    const Json& line = state->log[i];
    for (const auto& [name, value] : updates[i]["ours"].items()) {
      ExpectNear(line, updates[i]["ours"], name, name == "grad_norm" ? 1e-2 : 1e-3, i);
    }
    if (!updates[i].contains("trl")) continue;
    for (const auto& [name, value] : updates[i]["trl"].items()) {
      if (name == "objective/entropy" || name == "policy/entropy_avg") continue;  // counts padding
      ExpectNear(line, updates[i]["trl"], name, 1e-3, i);
    }
  }

  Json norms = Json::object();
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    norms[name] = tensor.to(at::kDouble).norm().item<double>();
  };
  for (const model::NamedTensor& stored : model::StoredTensors(
           rig.policy->parameters(), [](const model::Parameter& one) { return *one.tensor; })) {
    add(stored.name, stored.tensor);
  }
  add("value_head.weight", rig.head.weight);
  add("value_head.bias", rig.head.bias);
  for (const auto& [name, want] : golden["parameters"].items()) {
    ASSERT_TRUE(norms.contains(name)) << name;
    const double norm = want["norm"];
    EXPECT_NEAR(norms[name].get<double>(), norm, 1e-3 * norm) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, PpoGoldenTest,
                         testing::Values("llama", "gpt2", "whitened", "mini_batches",
                                         "value_head_scores"),
                         [](const auto& info) { return std::string(info.param); });

class PpoTest : public testing::Test {
 protected:
  absl::StatusOr<TrainerState> Run(PpoSeams seams,
                                   const TrainerCallbacks& callbacks = QuietCallbacks()) {
    Rig rig("llama", *group_);
    PpoTrainer trainer(options_, rig.models(), std::move(seams), &queries_, group_.get());
    return trainer.Run({}, callbacks);
  }

  const std::unique_ptr<parallel::ProcessGroup> group_ = parallel::ProcessGroup::Single();
  const Json golden_ = ReadTrainGolden("ppo/llama.json");
  PpoOptions options_ = OptionsOfGolden(golden_);
  std::vector<Ids> queries_ = QueriesOfGolden(golden_);
};

TEST_F(PpoTest, BatchesMustDivide) {
  options_.mini_batches = 3;
  absl::Status status = Run(RecordedSeams(golden_)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("num_mini_batches: expected a divisor of the 4 rows"));
  options_.mini_batches = 1;
  options_.estimate.whiten_rewards = true;
  status = CheckPpoOptions(options_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("whiten_rewards: expected mini-batches of at least 8 rows, got 4"));
}

TEST_F(PpoTest, NamesTheQueryWithoutATokenAndTheUpdateOfAnEmptyResponse) {
  PpoSeams seams = RecordedSeams(golden_);
  seams.generate = [](const std::vector<const Ids*>& queries, int64_t) {
    return std::vector<Ids>(queries.size());
  };
  absl::Status status = Run(seams).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "a response of update 1 has no token");
  queries_[4].clear();
  status = Run(seams).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "query 5 has no token");
}

TEST_F(PpoTest, NamesTheUpdateWhoseNumbersAreNotFinite) {
  PpoSeams seams = RecordedSeams(golden_);
  const auto score = seams.score;
  double bad = std::numeric_limits<double>::quiet_NaN();
  int calls = 0;
  seams.score = [&](const std::vector<const Ids*>& queries, const std::vector<Ids>& responses) {
    auto scores = score(queries, responses);
    if (++calls == 2) scores->front() = bad;
    return scores;
  };
  absl::Status status = Run(seams).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "a score of update 2 is not finite");
  calls = 0;
  bad = 1e30;  // its square is no float32
  status = Run(seams).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "the loss of update 2 is not finite");
}

TEST_F(PpoTest, StopsBetweenOptimiserSteps) {
  TrainerCallbacks callbacks = QuietCallbacks();
  int polls = 0, lines = 0;
  // Once before the first update and before each of its four steps; then before the second's.
  callbacks.is_stopped = [&] { return ++polls == 7; };
  callbacks.on_line = [&](const Json&) {
    ++lines;
    return absl::OkStatus();
  };
  EXPECT_EQ(Run(RecordedSeams(golden_), callbacks).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(lines, 1);
}

TEST_F(PpoTest, OwnOrdersAreFreshAndTheSameForASeed) {
  // Mini-batches of one row, so that each order gives other losses.
  options_.mini_batches = 4;
  options_.steps = 1;
  PpoSeams seams = RecordedSeams(golden_);
  const auto losses = [&] { return Run(seams).value().log[0]["loss"].get<double>(); };
  const double recorded = losses();
  seams.order = nullptr;
  const double own = losses();
  EXPECT_EQ(losses(), own);
  EXPECT_NE(own, recorded);
  // What it does by itself: another order for each pass.
  std::vector<std::vector<int64_t>> orders;
  seams.order = [&](int64_t rows, int64_t, int64_t pass) {
    return orders.emplace_back(RandomOrder(rows, 42 + static_cast<uint64_t>(pass)));
  };
  EXPECT_EQ(losses(), own);
  ASSERT_EQ(orders.size(), 4u);
  EXPECT_NE(orders[0], orders[1]);
}

class PpoHalfPrecisionTest : public PpoTest {
 protected:
  absl::StatusOr<TrainerState> RunIn(at::ScalarType compute, PpoSeams seams) {
    options_.scale_loss = compute == at::kHalf;
    Rig rig("llama", *group_, 0, compute);
    PpoTrainer trainer(options_, rig.models(), std::move(seams), &queries_, group_.get());
    auto state = trainer.Run({}, QuietCallbacks());
    EXPECT_EQ(rig.head.weight.scalar_type(), at::kFloat);
    optimizer_steps_ = trainer.optimizer().steps();
    return state;
  }

  int64_t optimizer_steps_ = 0;
};

TEST_F(PpoHalfPrecisionTest, StaysNearAndItsFirstRatioIsOne) {
  options_.steps = 1;
  options_.ppo_epochs = 1;
  const Json exact = Run(RecordedSeams(golden_)).value().log[0];
  for (const auto& [compute, tolerance] : {std::pair(at::kBFloat16, 2e-2), {at::kHalf, 2e-3}}) {
    SCOPED_TRACE(c10::toString(compute));
    const auto state = RunIn(compute, RecordedSeams(golden_));
    ASSERT_TRUE(state.ok()) << state.status();
    const Json& line = state->log[0];
    EXPECT_NEAR(line["val/ratio"].get<double>(), 1.0, 1e-6);
    for (const char* name : {"loss", "objective/entropy", "policy/entropy_avg", "loss/value_avg"}) {
      ExpectNear(line, exact, name, tolerance, 0);
    }
  }
}

// The second update's losses are too large for float32: in float16 its steps are left out.
TEST_F(PpoHalfPrecisionTest, StepsThatOverflowAreLeftOutInFloat16) {
  const PpoSeams recorded = RecordedSeams(golden_);
  PpoSeams seams = recorded;
  int update = 0;
  seams.score = [&](const std::vector<const Ids*>& queries, const std::vector<Ids>& responses) {
    auto scores = recorded.score(queries, responses);
    if (++update == 2) scores->front() = 1e30;
    return scores;
  };
  const auto sound = RunIn(at::kHalf, recorded);
  ASSERT_TRUE(sound.ok()) << sound.status();
  const int64_t sound_steps = optimizer_steps_;
  const auto state = RunIn(at::kHalf, seams);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(optimizer_steps_, sound_steps - options_.ppo_epochs);
  EXPECT_EQ(state->loss_scale, sound->loss_scale / std::exp2(options_.ppo_epochs));
  EXPECT_EQ(state->log[0]["loss"], sound->log[0]["loss"]);
  EXPECT_EQ(state->log[1]["loss"], 0);
  EXPECT_EQ(state->log[1]["grad_norm"], 0);
  EXPECT_GT(std::abs(state->log[2]["loss"].get<double>()), 0);
}

TEST(ValueHeadTest, IsUniformWithinItsBounds) {
  const ValueHead head = ValueHead::Random(1024, 42, at::kCPU);
  EXPECT_EQ(head.weight.sizes(), (at::IntArrayRef{1, 1024}));
  EXPECT_EQ(head.bias.sizes(), at::IntArrayRef{1});
  EXPECT_LE(head.weight.abs().max().item<double>(), 1.0 / 32);
  EXPECT_NEAR(head.weight.std().item<double>(), 1.0 / 32 / std::sqrt(3.0), 1e-3);
  EXPECT_NE(head.bias.item<double>(), 0.0);
  EXPECT_TRUE(head.weight.equal(ValueHead::Random(1024, 42, at::kCPU).weight));
  EXPECT_FALSE(head.weight.equal(ValueHead::Random(1024, 43, at::kCPU).weight));
}

// On two ranks each has a local batch of its own: rank r the queries, responses and scores of
// recorded update r.
struct RankData {
  explicit RankData(int rank) : golden(ReadTrainGolden("ppo/llama.json")) {
    const Json& update = golden["updates"][static_cast<size_t>(rank)];
    queries = update["queries"].get<std::vector<Ids>>();
    responses = update["responses"].get<std::vector<Ids>>();
    scores = update["scores"].get<std::vector<double>>();
  }
  const Json golden;
  std::vector<Ids> queries, responses;
  std::vector<double> scores;
};

// In such an order that the first pass takes them as they are given.
std::vector<Ids> Placed(const std::vector<Ids>& queries) {
  std::vector<Ids> placed(queries.size());
  const std::vector<int64_t> order = RandomOrder(static_cast<int64_t>(queries.size()), 42);
  for (size_t i = 0; i < order.size(); ++i) placed[static_cast<size_t>(order[i])] = queries[i];
  return placed;
}

// One update with that data; its line of metrics.
absl::StatusOr<Json> Update(Rig& rig, parallel::ProcessGroup& group, const RankData& data,
                            const std::vector<Ids>& queries, int64_t passes) {
  PpoOptions options = OptionsOfGolden(data.golden);
  options.batches.max_steps = 1;
  options.ppo_epochs = passes;
  PpoSeams seams;
  seams.generate = [&](const std::vector<const Ids*>& asked,
                       int64_t) -> absl::StatusOr<std::vector<Ids>> {
    for (size_t i = 0; i < asked.size(); ++i) {
      if (*asked[i] != data.queries[i]) return absl::InternalError("queries of another rank");
    }
    return data.responses;
  };
  seams.score = [&](const std::vector<const Ids*>&, const std::vector<Ids>&) {
    return data.scores;
  };
  PpoTrainer trainer(options, rig.models(), seams, &queries, &group);
  ASSIGN_OR_RETURN(const TrainerState state, trainer.Run({}, QuietCallbacks()));
  Json line = state.log[0];
  line.erase("tokens_per_second");
  line["tokens"] = state.tokens;
  return line;
}

// A rank's line, and on rank 0 the norms of all weights afterwards.
template <int kStage, int kPasses>
std::string UpdateOnRank(parallel::ProcessGroup& group) {
  const RankData data(group.rank());
  std::vector<Ids> queries = RankData(0).queries;
  for (const Ids& query : RankData(1).queries) queries.push_back(query);
  Rig rig("llama", group, kStage);
  absl::StatusOr<Json> line = Update(rig, group, data, Placed(queries), kPasses);
  if (!line.ok()) return line.status().ToString();
  const auto collected = rig.weights.Collect([](WeightShard& shard) { return shard.master; });
  if (!collected.ok()) return collected.status().ToString();
  for (const TrainedWeights::Named& one : *collected) {
    (*line)["norm of " + one.name] = one.tensor.norm().item<double>();
  }
  return DumpJson(*line);
}

template <std::string (*kBody)(parallel::ProcessGroup&)>
std::string OnRank(const parallel::GroupOptions& options) {
  at::set_num_threads(1);
  return parallel::WithGroup(options, kBody);
}

const parallel::RankFunctionRegistration kFunctions[] = {{"one_pass", OnRank<UpdateOnRank<0, 1>>},
                                                         {"stage_0", OnRank<UpdateOnRank<0, 4>>},
                                                         {"stage_1", OnRank<UpdateOnRank<1, 4>>},
                                                         {"stage_2", OnRank<UpdateOnRank<2, 4>>},
                                                         {"stage_3", OnRank<UpdateOnRank<3, 4>>}};

// The ranks' lines.
std::vector<Json> RunOnTwoRanks(const std::string& function) {
  std::vector<Json> lines;
  for (const auto& [rank, end] : parallel::RunRanks(function, {.world_size = 2})) {
    EXPECT_TRUE(end.status.ok()) << rank << ": " << end.output;
    const absl::StatusOr<Json> line = ParseJson(end.output);
    EXPECT_TRUE(line.ok()) << rank << ": " << end.output;
    lines.push_back(line.value_or(Json::object()));
  }
  return lines;
}

TEST(PpoRanksTest, MetricsAndGradientsAreMeansOverRanks) {
  const auto group = parallel::ProcessGroup::Single();
  std::vector<Json> alone;
  std::vector<std::unique_ptr<Rig>> rigs;
  for (const int rank : {0, 1}) {
    const RankData data(rank);
    rigs.push_back(std::make_unique<Rig>("llama", *group));
    alone.push_back(Update(*rigs.back(), *group, data, Placed(data.queries), 1).value());
  }
  double squares = 0;  // of the mean gradient; a step leaves its gradients in the shards
  for (size_t i = 0; i < rigs[0]->weights.shards().size(); ++i) {
    const at::Tensor mean =
        (rigs[0]->weights.shards()[i].gradient + rigs[1]->weights.shards()[i].gradient) / 2;
    squares += mean.square().sum().item<double>();
  }

  const std::vector<Json> together = RunOnTwoRanks("one_pass");
  ASSERT_EQ(together.size(), 2u);
  Json want = alone[0];
  for (const auto& [name, value] : alone[1].items()) {
    if (name.find('/') == std::string::npos && name != "loss") continue;
    const double sum = alone[0][name].get<double>() + value.get<double>();
    want[name] = name == "val/num_eos_tokens" ? sum : sum / 2;
  }
  want["tokens"] = alone[0]["tokens"].get<int64_t>() + alone[1]["tokens"].get<int64_t>();
  want["grad_norm"] = std::sqrt(squares);
  want["episode"] = 8;
  for (const auto& [name, value] : want.items()) {
    ExpectNear(together[0], want, name, 1e-5, 0);
    ExpectNear(together[1], want, name, 1e-5, 0);
  }
}

TEST(PpoRanksTest, EveryStageGivesTheSame) {
  const std::vector<Json> want = RunOnTwoRanks("stage_0");
  ASSERT_EQ(want.size(), 2u);
  ASSERT_GT(want[0].size(), 30u);
  for (const char* function : {"stage_1", "stage_2", "stage_3"}) {
    SCOPED_TRACE(function);
    const std::vector<Json> got = RunOnTwoRanks(function);
    ASSERT_EQ(got.size(), 2u);
    ASSERT_EQ(got[0].size(), want[0].size());
    for (const auto& [name, value] : want[0].items()) ExpectNear(got[0], want[0], name, 1e-4, 0);
  }
}

}  // namespace
}  // namespace flowmesh::train
