// Scores against those that tests/goldens/encoders computes from Transformers' logits.
#include "executors/train/reward_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "common/files.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::train {
namespace {

namespace fs = std::filesystem;
using model::ModelGolden;
using model::ReadModelGolden;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pointwise;
using Type = RewardOptions::Type;

fs::path EncoderGolden(const std::string& name) { return ModelGolden("../encoders/" + name); }

std::unique_ptr<RewardModel> LoadOrDie(const fs::path& folder, const RewardOptions& options) {
  auto reward = RewardModel::Load(folder, options);
  EXPECT_TRUE(reward.ok()) << reward.status();
  return *std::move(reward);
}

std::vector<double> ScoresOf(RewardModel& reward, const std::vector<std::string>& texts) {
  const auto scores = reward.Score(texts);
  EXPECT_TRUE(scores.ok()) << scores.status();
  return scores.value_or(std::vector<double>());
}

class RewardModelTest : public testing::TestWithParam<const char*> {};

TEST_P(RewardModelTest, ScoresEqualTransformers) {
  const Json golden = ReadModelGolden(std::string("../encoders/") + GetParam() + "/cases.json");
  std::vector<std::string> texts;
  for (const Json& item : golden["cases"]) texts.push_back(item["text"].get<std::string>());
  ASSERT_GE(golden["scores"].size(), 3u);
  for (const Json& settings : golden["scores"]) {
    RewardOptions options;
    options.type = settings["type"] == "sentiment" ? Type::kSentiment : Type::kClassification;
    options.scale = settings.value("scale", 1.0);
    options.max_length = settings.value("max_length", int64_t{512});
    if (settings.contains("positive_label")) {
      options.positive_label = settings["positive_label"].get<std::string>();
    }
    const std::unique_ptr<RewardModel> reward = LoadOrDie(EncoderGolden(GetParam()), options);
    EXPECT_THAT(ScoresOf(*reward, texts),
                Pointwise(DoubleNear(2e-5), settings["scores"].get<std::vector<double>>()))
        << settings;
  }
}

INSTANTIATE_TEST_SUITE_P(All, RewardModelTest,
                         testing::Values("bert", "roberta", "distilbert", "llama", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(RewardLabelTest, NamesInAnyCaseAndIndicesMeanTheSame) {
  const std::vector<std::string> texts = {"good dog", "a rude answer"};
  RewardOptions by_name, by_index;
  by_name.type = by_index.type = Type::kSentiment;
  by_name.positive_label = "NEUTRAL";
  by_name.negative_label = "positive";
  by_index.positive_label = "1";
  by_index.negative_label = "2";
  const auto named = LoadOrDie(EncoderGolden("bert"), by_name);
  const auto indexed = LoadOrDie(EncoderGolden("bert"), by_index);
  EXPECT_THAT(named->labels(), ElementsAre("Very NEGATIVE", "neutral", "Positive"));
  const std::vector<double> scores = ScoresOf(*named, texts);
  EXPECT_EQ(scores, ScoresOf(*indexed, texts));
  const Json cases = ReadModelGolden("../encoders/bert/cases.json")["cases"];
  ASSERT_EQ(cases[0]["text"], texts[0]);
  const auto logits = cases[0]["logits"].get<std::vector<double>>();
  EXPECT_NEAR(scores[0], logits[1] - logits[2], 2e-5);
}

TEST(RewardLabelTest, AClassThatDoesNotExist) {
  RewardOptions options;
  for (const char* label : {"happy", "3", "-1", ""}) {
    options.positive_label = label;
    const auto reward = RewardModel::Load(EncoderGolden("bert"), options);
    EXPECT_EQ(reward.status().code(), absl::StatusCode::kInvalidArgument) << label;
    EXPECT_THAT(Message(reward.status()),
                HasSubstr("positive_label: expected one of the classes Very NEGATIVE, neutral, "
                          "Positive, or an index below 3, got \"" +
                          std::string(label) + "\""));
  }
  options.positive_label.reset();
  options.negative_label = "happy";
  EXPECT_THAT(Message(RewardModel::Load(EncoderGolden("bert"), options).status()),
              HasSubstr("negative_label: expected"));
}

TEST(RewardScoreTest, ATextWithoutATokenScoresZero) {
  const auto reward = LoadOrDie(EncoderGolden("llama"), {});  // no special tokens
  const std::vector<double> scores = ScoresOf(*reward, {"", "good dog", ""});
  EXPECT_THAT(scores, ElementsAre(0.0, testing::Ne(0.0), 0.0));
  EXPECT_THAT(ScoresOf(*reward, {}), ElementsAre());
  EXPECT_THAT(ScoresOf(*reward, {""}), ElementsAre(0.0));
}

TEST(RewardScoreTest, ManyTextsScoreAsEachAlone) {
  const auto reward = LoadOrDie(EncoderGolden("distilbert"), {});
  std::vector<std::string> texts;
  for (int i = 0; i < 40; ++i) texts.push_back(std::string(i, 'x') + " dog");
  const std::vector<double> together = ScoresOf(*reward, texts);
  ASSERT_EQ(together.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    EXPECT_NEAR(together[i], ScoresOf(*reward, {texts[i]})[0], 1e-5) << i;
  }
}

TEST(RewardScoreTest, ATokenThatTheModelHasNot) {
  TempDir folder;
  const fs::path copy = folder / "llama";
  fs::copy(EncoderGolden("llama"), copy);
  Json tokenizer = Json::parse(*ReadFile(copy / "tokenizer.json"));
  Json added = tokenizer["added_tokens"][0];
  added["id"] = 320;
  added["content"] = "<new>";
  tokenizer["added_tokens"].push_back(added);
  std::ofstream(copy / "tokenizer.json") << tokenizer.dump();
  const auto reward = LoadOrDie(copy, {});
  EXPECT_TRUE(reward->Score({"good dog"}).ok());
  const auto scores = reward->Score({"good <new>"});
  EXPECT_EQ(scores.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(scores.status()), HasSubstr("a token beyond the model's vocabulary"));
}

TEST(ResponseTextTest, CleanUpEqualsTransformers) {
  const Json golden = ReadModelGolden("../encoders/clean_up.json");
  ASSERT_GE(golden["cases"].size(), 5u);
  for (const Json& item : golden["cases"]) {
    EXPECT_EQ(CleanUpSpaces(item["text"].get<std::string>()), item["clean"].get<std::string>());
  }
}

// The texts and scores that the PPO goldens recorded for sampled responses.
TEST(ResponseTextTest, ResponsesScoreAsRecorded) {
  const Json golden = ReadModelGolden("../train/ppo/llama.json");
  RewardOptions options;
  ASSERT_EQ(golden["reward_model"]["type"], "sentiment");
  options.type = Type::kSentiment;
  options.scale = golden["reward_model"]["scale"].get<double>();
  const auto reward = LoadOrDie(EncoderGolden("bert"), options);
  const auto tokenizer = text::LoadTokenizerFromFolder(ModelGolden("llama"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_EQ(golden["updates"].size(), 6u);
  for (const Json& update : golden["updates"]) {
    std::vector<std::string> texts;
    for (const Json& response : update["responses"]) {
      texts.push_back(ResponseText(**tokenizer, response.get<std::vector<text::TokenId>>()));
    }
    EXPECT_EQ(texts, update["texts"].get<std::vector<std::string>>());
    EXPECT_THAT(ScoresOf(*reward, texts),
                Pointwise(DoubleNear(2e-5), update["scores"].get<std::vector<double>>()));
  }
}

}  // namespace
}  // namespace flowmesh::train
