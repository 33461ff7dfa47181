// Generation against Transformers: the greedy continuations of every family, alone and in batches
// of every shape that the scheduler can make, and the rules about how a completion ends.
#include "executors/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "executors/device/test_device.h"
#include "executors/engine/kv_cache.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using Ids = model::Ids;

bool GoOn(const GenerationProgress&) { return true; }

model::LoadedModel Load(const std::string& name, at::ScalarType dtype = at::kFloat,
                        bool autocast = false) {
  auto loaded =
      model::LoadModel(model::ModelGolden(name),
                       {.dtype = dtype, .device = device::TestDevice(), .autocast = autocast});
  if (!loaded.ok()) throw std::runtime_error(loaded.status().ToString());
  return *std::move(loaded);
}

GenerationRequest Greedy(Ids prompt, int64_t max_tokens) {
  GenerationRequest request;
  request.prompt_ids = std::move(prompt);
  request.params.max_tokens = max_tokens;
  request.params.temperature = 0;
  return request;
}

// Blocks of four tokens, `blocks` of them.
EngineOptions FewBlocks(const model::LoadedModel& model, uint64_t blocks) {
  EngineOptions options{.block_tokens = 4};
  options.kv_cache_bytes = blocks * KvCache::BytesPerBlock(*model.model, options.block_tokens);
  return options;
}

std::vector<Completion> Generate(model::LoadedModel& model, const EngineOptions& options,
                                 const std::vector<GenerationRequest>& requests,
                                 GenerationProgress* last = nullptr) {
  auto completions = Engine::Create(&model, options)->Generate(requests, [&](const auto& progress) {
    if (last != nullptr) *last = progress;
    return true;
  });
  if (!completions.ok()) throw std::runtime_error(completions.status().ToString());
  return *std::move(completions);
}

Completion GenerateOne(model::LoadedModel& model, const GenerationRequest& request,
                       const EngineOptions& options = {}) {
  return Generate(model, options, {request}).front();
}

class GreedyTest : public testing::TestWithParam<const char*> {
 protected:
  GreedyTest() : model_(Load(GetParam())) {
    const Json golden = model::ReadModelGolden(std::string(GetParam()) + "/greedy.json");
    for (const Json& c : golden["cases"]) {
      requests_.push_back(Greedy(c["prompt"].get<Ids>(), kNewTokens));
      wanted_.push_back(c["output"].get<Ids>());
    }
  }

  void ExpectGoldens(const std::vector<Completion>& completions) {
    ASSERT_EQ(completions.size(), 100u);
    for (size_t i = 0; i < completions.size(); ++i) {
      EXPECT_EQ(completions[i].token_ids, wanted_[i]) << i;
      const bool is_eos = wanted_[i].back() == 2;
      const bool is_full = wanted_[i].size() == kNewTokens;
      EXPECT_EQ(completions[i].finish_reason, is_eos && !is_full ? "stop" : "length") << i;
    }
  }

  static constexpr int64_t kNewTokens = 24;
  model::LoadedModel model_;
  std::vector<GenerationRequest> requests_;
  std::vector<Ids> wanted_;
};

TEST_P(GreedyTest, EqualsTransformersInOneBatch) {
  GenerationProgress last;
  ExpectGoldens(Generate(model_, {}, requests_, &last));
  EXPECT_EQ(last.preemptions, 0u);
}

TEST_P(GreedyTest, EqualsTransformersAlone) {
  std::vector<Completion> completions;
  for (const GenerationRequest& request : requests_) {
    completions.push_back(GenerateOne(model_, request));
  }
  ExpectGoldens(completions);
}

// Prompts come in pieces, and pieces share their passes with decoding sequences.
TEST_P(GreedyTest, EqualsTransformersWithASmallTokenBudget) {
  ExpectGoldens(Generate(model_, {.max_batch_tokens = 13, .max_sequences = 7}, requests_));
}

// Room for two or three sequences: most are preempted and computed anew.
TEST_P(GreedyTest, EqualsTransformersWithFewBlocks) {
  EngineOptions options = FewBlocks(model_, 40);
  options.max_sequences = 10;
  GenerationProgress last;
  ExpectGoldens(Generate(model_, options, requests_, &last));
  EXPECT_GT(last.preemptions, 10u);
}

INSTANTIATE_TEST_SUITE_P(All, GreedyTest,
                         testing::Values("llama", "mistral", "qwen2", "qwen3", "gemma2",
                                         "gemma3_text", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

class EngineTest : public testing::Test {
 protected:
  // A greedy completion without an end of its own, and its text.
  Completion Plain(int64_t max_tokens = 24) {
    return GenerateOne(model_, Greedy(prompt_, max_tokens));
  }

  model::LoadedModel model_ = Load("llama");
  const Ids prompt_ = model::ReadModelGolden("llama/greedy.json")["cases"][0]["prompt"].get<Ids>();
};

TEST_F(EngineTest, MaxTokensEndsWithLength) {
  const Completion completion = Plain(5);
  EXPECT_EQ(completion.token_ids.size(), 5u);
  EXPECT_EQ(completion.finish_reason, "length");
}

TEST_F(EngineTest, MaxModelLenEndsWithLength) {
  const int64_t limit = static_cast<int64_t>(prompt_.size()) + 3;
  const Completion completion =
      GenerateOne(model_, Greedy(prompt_, int64_t{1} << 60), {.max_model_len = limit});
  EXPECT_EQ(completion.token_ids.size(), 3u);
  EXPECT_EQ(completion.finish_reason, "length");
}

TEST_F(EngineTest, EosCountsButIsNotInTheText) {
  const Completion plain = Plain();
  model::ModelInfo& info = const_cast<model::ModelInfo&>(model_.model->info());
  info.eos_ids.push_back(plain.token_ids[3]);
  const Completion ended = Plain();
  EXPECT_EQ(ended.token_ids, Ids(plain.token_ids.begin(), plain.token_ids.begin() + 4));
  EXPECT_EQ(ended.finish_reason, "stop");
  EXPECT_EQ(ended.text, Plain(3).text);
  EXPECT_EQ(Plain(4).finish_reason, "length") << "EOS as the last allowed token";
}

TEST_F(EngineTest, AStopStringCutsTheTextAndEndsTheSequence) {
  const Completion plain = Plain();
  ASSERT_GT(plain.text.size(), 12u);
  GenerationRequest request = Greedy(prompt_, 24);
  // From the middle of a token to the middle of a later one.
  const std::string stop = plain.text.substr(5, 6);
  request.params.stop = {"never in there", stop};
  const Completion stopped = GenerateOne(model_, request);
  EXPECT_EQ(stopped.text, plain.text.substr(0, plain.text.find(stop)));
  EXPECT_EQ(stopped.finish_reason, "stop");
  EXPECT_LT(stopped.token_ids.size(), plain.token_ids.size());
}

TEST_F(EngineTest, AStopStringAtTheLastTokenWins) {
  const Completion plain = Plain(6);
  GenerationRequest request = Greedy(prompt_, 6);
  request.params.stop = {plain.text.substr(Plain(5).text.size())};
  const Completion stopped = GenerateOne(model_, request);
  EXPECT_EQ(stopped.finish_reason, "stop");
  EXPECT_EQ(stopped.token_ids.size(), 6u);
}

// The same draws whatever the neighbours and the shape of the batch; other draws for another item.
TEST_F(EngineTest, SampledTokensDependOnSeedAndItemAlone) {
  std::vector<GenerationRequest> requests;
  for (uint64_t i = 0; i < 6; ++i) {
    GenerationRequest request = Greedy(prompt_, 16);
    request.params.temperature = 1.5;
    request.params.seed = 7;
    request.item_index = i % 3;
    requests.push_back(request);
  }
  EngineOptions small = FewBlocks(model_, 40);
  small.max_batch_tokens = 11;
  const std::vector<Completion> together = Generate(model_, small, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].token_ids, GenerateOne(model_, requests[i]).token_ids) << i;
    EXPECT_EQ(together[i].token_ids, together[i % 3].token_ids) << i;
  }
  EXPECT_NE(together[0].token_ids, together[1].token_ids);
  GenerationRequest other = requests[0];
  other.params.seed = 8;
  EXPECT_NE(GenerateOne(model_, other).token_ids, together[0].token_ids);
}

// A rotation base that grows with the sequence (dynamic scaling) is that of the sequence alone.
TEST_F(EngineTest, DynamicRotationIgnoresNeighbours) {
  model::LoadedModel dynamic = Load("llama_biased");
  EXPECT_EQ(Engine::Create(&dynamic, {})->max_model_len(), 32);
  std::vector<GenerationRequest> requests;
  for (size_t length : {3, 12, 20, 27}) {
    requests.push_back(Greedy(Ids(prompt_.begin(), prompt_.begin() + length), 4));
  }
  const std::vector<Completion> together = Generate(dynamic, {}, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].token_ids, GenerateOne(dynamic, requests[i]).token_ids) << i;
  }
}

// Nor does it matter whether a sequence is computed anew for want of memory.
TEST_F(EngineTest, DynamicRotationIsTheSameWhenComputedAnew) {
  model::LoadedModel dynamic = Load("llama_biased");
  std::vector<GenerationRequest> requests;
  for (size_t length : {3, 4, 5, 6}) {
    requests.push_back(Greedy(Ids(prompt_.begin(), prompt_.begin() + length), 24));
  }
  const std::vector<Completion> together = Generate(dynamic, FewBlocks(dynamic, 12), requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(together[i].token_ids, GenerateOne(dynamic, requests[i]).token_ids) << i;
  }
}

// With autocast as well, as policies answer that PPO trains.
TEST_F(EngineTest, BothHalfPrecisionsGenerate) {
  for (const auto& [dtype, autocast] : {std::pair(at::kBFloat16, false),
                                        {at::kHalf, false},
                                        {at::kBFloat16, true},
                                        {at::kHalf, true}}) {
    model::LoadedModel half = Load("llama", dtype, autocast);
    const Completion completion = GenerateOne(half, Greedy(prompt_, 4));
    EXPECT_EQ(completion.token_ids.size(), 4u) << dtype;
    EXPECT_EQ(completion.token_ids[0], Plain(1).token_ids[0]) << dtype;
    // In passes of which most have no sequence's last token.
    ASSERT_GT(prompt_.size(), 6u);
    const Completion in_pieces = GenerateOne(half, Greedy(prompt_, 4), {.max_batch_tokens = 3});
    EXPECT_EQ(in_pieces.token_ids[0], completion.token_ids[0]) << dtype;
  }
}

TEST_F(EngineTest, ProgressCountsPromptsAndCompletions) {
  EngineOptions options = FewBlocks(model_, 40);
  const std::vector<GenerationRequest> requests(8, Greedy(prompt_, 10));
  GenerationProgress last;
  const std::vector<Completion> completions = Generate(model_, options, requests, &last);
  EXPECT_EQ(last.finished, 8u);
  EXPECT_EQ(last.total, 8u);
  EXPECT_EQ(last.prompt_tokens, 8 * prompt_.size()) << "tokens computed anew count once";
  EXPECT_EQ(last.completion_tokens, 80u);
}

TEST_F(EngineTest, ProgressCanCancel) {
  int calls = 0;
  const auto result =
      Engine::Create(&model_, {})->Generate({Greedy(prompt_, 24)}, [&](const auto&) {
        return ++calls < 3;
      });
  EXPECT_TRUE(absl::IsCancelled(result.status()));
  EXPECT_EQ(calls, 3);
}

TEST_F(EngineTest, NoRoomForTheLongestSequenceIsSaid) {
  const auto result =
      Engine::Create(&model_, FewBlocks(model_, 10))->Generate({Greedy(prompt_, 24)}, GoOn);
  EXPECT_TRUE(absl::IsResourceExhausted(result.status()));
  EXPECT_THAT(std::string(result.status().message()), StartsWith("out of memory: keys and values"));
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("60 tokens"));
}

TEST_F(EngineTest, NoRequestsGiveNoCompletions) {
  EXPECT_TRUE(Engine::Create(&model_, {})->Generate({}, GoOn)->empty());
}

}  // namespace
}  // namespace flowmesh::engine
