// PPO's arithmetic on numbers of a rollout that were recorded (tests/goldens/train/ppo), and on
// some that can be checked by hand; and which rows its updates take.
#include "executors/train/ppo_math.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "executors/train/ppo_plan.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

class EstimateTest : public testing::TestWithParam<const char*> {};

void ExpectNear(const PlaceRows& got, const Json& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].size(), want[i].size()) << what << " of response " << i;
    for (size_t t = 0; t < got[i].size(); ++t) {
      EXPECT_NEAR(got[i][t], want[i][t].get<float>(), 1e-4) << what << " " << i << ", " << t;
    }
  }
}

TEST_P(EstimateTest, EqualsTheReference) {
  const Json golden = ReadTrainGolden(std::string("ppo/") + GetParam() + ".json");
  const Json &training = golden["training"], &details = golden["details"];
  const Json& update = golden["updates"][0];
  RolloutNumbers rollout = {.log_probs = details["logprobs"],
                            .reference_log_probs = details["ref_logprobs"],
                            .values = details["values"],
                            .scores = update["scores"]};
  for (size_t i = 0; i < rollout.scores.size(); ++i) {
    if (update["responses"][i].back() != 2) {
      rollout.scores[i] -= training.value("missing_eos_penalty", 0.0);
    }
  }
  const Estimates estimates =
      Estimate(rollout, {.kl_coef = training["kl_coef"],
                         .gamma = training.value("gamma", 1.0),
                         .whiten_rewards = training.value("whiten_rewards", false)});
  ExpectNear(estimates.rewards, details["rewards"], "reward");
  ExpectNear(estimates.advantages, details["advantages"], "advantage");
  ExpectNear(estimates.returns, details["returns"], "return");
}

INSTANTIATE_TEST_SUITE_P(Cases, EstimateTest,
                         testing::Values("llama", "gpt2", "whitened", "mini_batches",
                                         "value_head_scores"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EstimateTest, TheScoreStandsBehindAShortResponse) {
  // The second response ends before the longest one does, so that it has a place more.
  const RolloutNumbers rollout = {.log_probs = {{-1, -2}, {-3}},
                                  .reference_log_probs = {{-1.5, -2}, {-2}},
                                  .values = {{0.5, 0.25}, {1, 2}},
                                  .scores = {10, 20}};
  const Estimates estimates = Estimate(rollout, {.kl_coef = 0.1, .gamma = 0.5, .lam = 0.5});
  EXPECT_THAT(estimates.rewards[0], ElementsAre(FloatNear(-0.05f, 1e-6f), 10.0f));
  EXPECT_THAT(estimates.rewards[1], ElementsAre(FloatNear(0.1f, 1e-6f), 20.0f));
  // From the end: A = 20 - 2 = 18; A = 0.1 + 0.5 * 2 - 1 + 0.25 * 18 = 4.6; returns A + value.
  EXPECT_THAT(estimates.returns[1], ElementsAre(FloatNear(5.6f, 1e-5f), FloatNear(20.0f, 1e-5f)));
  EXPECT_THAT(estimates.returns[0],
              ElementsAre(FloatNear(-0.05f + 0.125f + 0.25f * 9.75f, 1e-5f), 10.0f));
  ASSERT_EQ(estimates.advantages[1].size(), 1u);
}

TEST(EstimateTest, ASinglePlaceHasNoAdvantage) {
  const RolloutNumbers rollout = {
      .log_probs = {{-1}}, .reference_log_probs = {{-1}}, .values = {{0.5}}, .scores = {7}};
  const Estimates estimates = Estimate(rollout, {});
  EXPECT_THAT(estimates.advantages, ElementsAre(ElementsAre(0.0f)));
  EXPECT_THAT(estimates.returns, ElementsAre(ElementsAre(7.0f)));
}

TEST(WhitenTest, CountsAllPlacesAlike) {
  PlaceRows rows = {{1, 2}, {6}};
  Whiten(rows, /*keep_mean=*/false);
  const float deviation = std::sqrt(7.0f);  // (4 + 1 + 9) / 2
  EXPECT_THAT(rows, ElementsAre(ElementsAre(FloatNear(-2 / deviation, 1e-5f),
                                            FloatNear(-1 / deviation, 1e-5f)),
                                ElementsAre(FloatNear(3 / deviation, 1e-5f))));
  rows = {{1, 2}, {6}};
  Whiten(rows, /*keep_mean=*/true);
  EXPECT_THAT(rows[1], ElementsAre(FloatNear(3 + 3 / deviation, 1e-5f)));
}

TEST(ClippedLossTest, ClippedPlacesTeachNothing) {
  const at::Tensor ratio = at::tensor({1.0f, 1.5f, 1.5f, 0.5f});
  ratio.requires_grad_(true);
  const ClippedLoss loss = PolicyLoss(ratio, at::tensor({1.0f, 1.0f, -1.0f, -1.0f}), 0.2);
  EXPECT_NEAR(loss.loss.item<double>(), (-1.0 - 1.2 + 1.5 + 0.8) / 4, 1e-6);
  EXPECT_NEAR(loss.clip_fraction.item<double>(), 0.5, 1e-6);
  loss.loss.backward();
  const at::Tensor gradient = ratio.grad() * 4;
  const float* g = gradient.const_data_ptr<float>();
  EXPECT_THAT(std::vector<float>(g, g + 4), ElementsAre(-1.0f, 0.0f, 1.0f, 0.0f));
}

TEST(ClippedLossTest, ValuesStayNearOldOnes) {
  const ClippedLoss loss =
      ValueLoss(at::tensor({1.0f, 0.1f}), at::tensor({0.0f, 0.0f}), at::tensor({1.0f, 1.0f}), 0.2);
  EXPECT_NEAR(loss.loss.item<double>(), 0.5 * (0.64 + 0.81) / 2, 1e-6);
  EXPECT_NEAR(loss.clip_fraction.item<double>(), 0.5, 1e-6);
}

TEST(PpoPlanTest, CountsEpisodes) {
  // The example of TASKS.md 3.7: 200 episodes, 16 a time.
  EXPECT_EQ(PpoPlan({.rows = 100, .batch_size = 4, .accumulation = 4}, 50).total_updates(), 13);
  EXPECT_EQ(PpoPlan({.rows = 10, .batch_size = 2, .epochs = 1.55}, {}).total_updates(), 8);
  EXPECT_EQ(PpoPlan({.rows = 10, .batch_size = 2, .world_size = 2}, {}).total_updates(), 3);
  EXPECT_EQ(PpoPlan({.rows = 10, .max_steps = 3}, 50).total_updates(), 3);
  EXPECT_EQ(PpoPlan({.rows = 2, .batch_size = 1}, {}).EpochsAfter(4), 2.0);
}

std::vector<int64_t> Slice(const std::vector<int64_t>& all, size_t begin, size_t count) {
  return {all.begin() + static_cast<int64_t>(begin),
          all.begin() + static_cast<int64_t>(begin + count)};
}

TEST(PpoPlanTest, DropsTheRestOfAPass) {
  const PpoPlan plan({.rows = 7, .batch_size = 3}, {});
  EXPECT_EQ(plan.Rows(0), Slice(RandomOrder(7, 42), 0, 3));
  EXPECT_EQ(plan.Rows(1), Slice(RandomOrder(7, 42), 3, 3));
  EXPECT_EQ(plan.Rows(2), Slice(RandomOrder(7, 43), 0, 3));
}

TEST(PpoPlanTest, DealsBatchesToRanks) {
  const auto plan = [](int rank) {
    return PpoPlan({.rows = 7, .batch_size = 2, .rank = rank, .world_size = 2}, {});
  };
  const std::vector<int64_t> order = RandomOrder(7, 42);
  EXPECT_EQ(plan(0).Rows(0), Slice(order, 0, 2));
  EXPECT_EQ(plan(1).Rows(0), Slice(order, 2, 2));
  EXPECT_EQ(plan(0).Rows(1), Slice(order, 4, 2));
  EXPECT_EQ(plan(1).Rows(1), Slice(order, 0, 2));  // there is no fourth batch
  EXPECT_EQ(plan(0).Rows(2), Slice(RandomOrder(7, 43), 0, 2));
}

TEST(PpoPlanTest, RepeatsTooFewRows) {
  const PpoPlan plan({.rows = 2, .batch_size = 5}, {});
  std::vector<int64_t> want;
  for (const uint64_t seed : {45, 46, 47}) {
    const std::vector<int64_t> order = RandomOrder(2, seed);
    want.insert(want.end(), order.begin(), order.end());
  }
  want.resize(5);
  EXPECT_EQ(plan.Rows(1), want);
}

}  // namespace
}  // namespace flowmesh::train
