// The steps of TASKS.md 4.1, one by one: what can be drawn at all, and how often.
#include "executors/engine/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace flowmesh::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

// One draw from `logits` by a fresh sampler.
text::TokenId Draw(const SamplingParams& params, std::vector<float> logits, uint64_t item = 0,
                   const std::vector<text::TokenId>& prompt = {}) {
  return Sampler(params, item, prompt).Next(logits);
}

// How often each token comes in 20,000 draws of different items.
std::map<text::TokenId, double> Shares(const SamplingParams& params,
                                       const std::vector<float>& logits) {
  constexpr int kDraws = 20000;
  std::map<text::TokenId, double> shares;
  for (int i = 0; i < kDraws; ++i) {
    shares[Draw(params, logits, static_cast<uint64_t>(i))] += 1.0 / kDraws;
  }
  return shares;
}

std::vector<text::TokenId> Drawn(const SamplingParams& params, const std::vector<float>& logits) {
  std::vector<text::TokenId> ids;
  for (const auto& [id, share] : Shares(params, logits)) ids.push_back(id);
  return ids;
}

SamplingParams Free() {
  SamplingParams params;
  params.temperature = 1;
  params.top_p = 1;
  return params;
}

TEST(SamplerTest, GreedyTakesTheLowestIdOnTies) {
  for (const bool by_flag : {false, true}) {
    SamplingParams params;
    params.greedy = by_flag;
    params.temperature = by_flag ? 5 : 9e-6;
    EXPECT_EQ(Draw(params, {1, 3, 3, 2}), 1);
  }
}

TEST(SamplerTest, DrawsBySoftmaxOfTheTemperature) {
  SamplingParams params = Free();
  for (const double temperature : {0.5, 1.0, 2.0}) {
    params.temperature = temperature;
    const std::vector<float> logits = {0, 1, 2, -1};
    double total = 0;
    for (const float logit : logits) total += std::exp(logit / temperature);
    auto shares = Shares(params, logits);
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(shares[static_cast<text::TokenId>(i)], std::exp(logits[i] / temperature) / total,
                  0.015)
          << temperature;
    }
  }
}

TEST(SamplerTest, TopKKeepsTies) {
  SamplingParams params = Free();
  const std::vector<float> logits = {1, 2, 1, 0, 1.5};
  params.top_k = 2;
  EXPECT_THAT(Drawn(params, logits), UnorderedElementsAre(1, 4));
  params.top_k = 3;  // the third largest is there twice
  EXPECT_THAT(Drawn(params, logits), UnorderedElementsAre(0, 1, 2, 4));
  for (const int64_t off : {0, -1, 5, 100}) {
    params.top_k = off;
    EXPECT_EQ(Drawn(params, logits).size(), 5u) << off;
  }
}

// Probabilities 0.5, 0.25, 0.15, 0.1.
TEST(SamplerTest, TopPKeepsWhatTheRunningSumFromBelowDoesNotDrop) {
  SamplingParams params = Free();
  const std::vector<float> logits = {std::log(0.5f), std::log(0.25f), std::log(0.15f),
                                     std::log(0.1f)};
  const std::map<double, size_t> kept = {{0.95, 4}, {0.8, 3}, {0.6, 2}, {0.4, 1}, {1e-9, 1}};
  for (const auto& [top_p, count] : kept) {
    params.top_p = top_p;
    EXPECT_EQ(Drawn(params, logits).size(), count) << top_p;
  }
}

TEST(SamplerTest, TopPSeesWhatTopKLeft) {
  SamplingParams params = Free();
  params.top_k = 2;    // leaves 0.5 and 0.25, which become 2/3 and 1/3
  params.top_p = 0.6;  // of which the first alone is enough
  EXPECT_THAT(Drawn(params, {std::log(0.5f), std::log(0.25f), std::log(0.15f), std::log(0.1f)}),
              ElementsAre(0));
}

TEST(SamplerTest, RepetitionCountsPromptAndCompletion) {
  SamplingParams params;
  params.greedy = true;
  params.repetition_penalty = 2;
  // Positive logits are divided, negative ones multiplied; how often does not matter.
  EXPECT_EQ(Draw(params, {4, 3}, 0, {0, 0}), 1);
  EXPECT_EQ(Draw(params, {4, 1.5}, 0, {0}), 0);
  EXPECT_EQ(Draw(params, {-1, -1.5}, 0, {0}), 1);
  Sampler sampler(params, 0, {});
  std::vector<float> first = {4, 3}, second = {4, 3};
  EXPECT_EQ(sampler.Next(first), 0);
  EXPECT_EQ(sampler.Next(second), 1) << "0 is in the completion now";
}

TEST(SamplerTest, FrequencyAndPresenceCountTheCompletionAlone) {
  SamplingParams params;
  params.greedy = true;
  params.frequency_penalty = 1;
  const std::vector<text::TokenId> prompt = {0, 0, 0, 0};
  const auto tokens = [&](int count) {
    Sampler sampler(params, 0, prompt);
    std::vector<text::TokenId> ids;
    for (int i = 0; i < count; ++i) {
      std::vector<float> logits = {2.5, 0.7, 0};
      ids.push_back(sampler.Next(logits));
    }
    return ids;
  };
  // 2.5, 1.5, then 0.5 against 0.7, then 0.5 against -0.3.
  EXPECT_THAT(tokens(4), ElementsAre(0, 0, 1, 0));
  params.frequency_penalty = 0;
  params.presence_penalty = 2;  // once, however often it came: 0.5 against 0.7, then -1.3 and 0
  EXPECT_THAT(tokens(4), ElementsAre(0, 1, 0, 0));
}

TEST(SamplerTest, SeedAndItemFixTheDraws) {
  SamplingParams params = Free();
  const auto draws = [&](uint64_t item) {
    Sampler sampler(params, item, {});
    std::vector<text::TokenId> ids;
    for (int i = 0; i < 50; ++i) {
      std::vector<float> logits(100, 0);
      ids.push_back(sampler.Next(logits));
    }
    return ids;
  };
  const auto first = draws(0);
  EXPECT_EQ(first, draws(0));
  EXPECT_NE(first, draws(1));
  params.seed = 1;
  EXPECT_NE(first, draws(0));
}

TEST(SamplerTest, NanNeverComes) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(Drawn(Free(), {nan, 1, nan}), ElementsAre(1));
  SamplingParams greedy;
  greedy.greedy = true;
  EXPECT_EQ(Draw(greedy, {nan, 1, 2}), 2);
}

}  // namespace
}  // namespace flowmesh::engine
