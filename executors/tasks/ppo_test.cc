// PPO as a task: its algorithm has tests of its own (executors/train/ppo_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "absl/strings/str_split.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/kernels/few_rows.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"
#include "executors/tasks/training.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Classifier(const std::string& family) {
  return model::ModelGolden("../encoders/" + family).string();
}

class PpoTaskTest : public TaskTest {
 protected:
  PpoTaskTest() {
    spec_ = {{"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
             {"data", {{"prompts", {"the small world", "hello there", "a lazy dog"}}}},
             {"reward_model", {{"identifier", Classifier("bert")}}},
             {"generation", {{"max_new_tokens", 8}, {"stop", "eos"}}},
             {"training",
              {{"steps", 2}, {"per_device_train_batch_size", 2}, {"bf16", false}, {"seed", 3}}}};
  }

  absl::StatusOr<TaskOutcome> Run(int restarts = 0) {
    return RunPpo(Context(), TrainingDevice(),
                  [restarts](std::string_view name) -> std::optional<std::string> {
                    if (name == "TORCHELASTIC_RESTART_COUNT") return std::to_string(restarts);
                    if (name == "HF_HUB_OFFLINE") return "1";
                    return std::nullopt;
                  });
  }
  Json Result(int restarts = 0) {
    const auto outcome = Run(restarts);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.ok() ? outcome->result : Json();
  }
  std::string Error() { return std::string(Message(Run().status())); }
  Json& training() { return spec_["training"]; }

  // The metrics lines that are on disk.
  std::vector<Json> Lines() {
    std::vector<Json> lines;
    const std::string text = ReadFile(dir_ / "T1/artifacts/metrics.jsonl").value();
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(ParseJson(ToStd(line)).value());
      lines.back().erase("tokens_per_second");
    }
    return lines;
  }
};

TEST_F(PpoTaskTest, LeavesWhatTheContractSays) {
  training()["save_freq"] = 1;
  const Json result = Result();
  EXPECT_EQ(result["training_successful"], true);
  EXPECT_EQ(result["dataset_size"], 3);
  EXPECT_EQ(result["global_steps"], 2);
  EXPECT_EQ(result["precision"], "fp32");
  EXPECT_FALSE(result.contains("demo_data"));
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  for (const char* key :
       {"objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward",
        "objective/scores", "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg",
        "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg", "val/ratio", "val/num_eos_tokens",
        "episode", "grad_norm", "learning_rate", "step", "epoch", "loss"}) {
    EXPECT_TRUE(lines[1].contains(key)) << key;
  }
  EXPECT_EQ(lines[0]["objective/kl"], 0.0) << "policy and reference begin as one";
  EXPECT_NE(lines[1]["objective/kl"], 0.0);
  EXPECT_EQ(lines[1]["episode"], 4);
  EXPECT_EQ(lines[1]["learning_rate"], 1.41e-5 / 2);
  EXPECT_EQ(result["metrics"]["episode"], 4);

  // The policy alone, in float32, and it opens.
  EXPECT_EQ(result["final_model_path"], (dir_ / "T1/checkpoints/final_model").string());
  const auto opened = model::LoadModel(result["final_model_path"].get<std::string>(), {});
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(opened->model->info().family, "llama");
  EXPECT_THAT(opened->warnings, testing::IsEmpty()) << "no value head in it";
  EXPECT_TRUE(fs::exists(dir_ / "T1/checkpoints/checkpoint-1/trainer_state.json"));
}

// On a processor without bfloat16 that is ignored.
TEST_F(PpoTaskTest, InBfloat16PolicyAndReferenceBeginAsOneToo) {
  training()["bf16"] = true;
  EXPECT_EQ(Result()["precision"], kernels::HasNativeBf16() ? "bf16" : "fp32");
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["objective/kl"], 0.0);
  EXPECT_NEAR(lines[0]["val/ratio"].get<double>(), 1.0, 1e-2);
  EXPECT_NE(lines[1]["objective/kl"], 0.0);
}

TEST_F(PpoTaskTest, LearnsToAnswerForHigherScores) {
  // More than one class scores by the largest logit; these steps are long for a tiny model.
  training() = {{"steps", 30},         {"per_device_train_batch_size", 8},
                {"bf16", false},       {"learning_rate", 3e-3},
                {"kl_coef", 1e-4},     {"lr_scheduler_type", "constant"},
                {"save_model", false}, {"save_strategy", "no"}};
  for (int i = 0; i < 5; ++i) spec_["data"]["prompts"].push_back("the small world");
  spec_["reward_model"]["positive_label"] = 0;
  spec_["generation"]["temperature"] = 1.0;
  const Json result = Result();
  EXPECT_FALSE(result.contains("final_model_path"));
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 30u);
  const auto score = [&](size_t begin) {
    double sum = 0;
    for (size_t i = begin; i < begin + 5; ++i) sum += lines[i]["objective/scores"].get<double>();
    return sum / 5;
  };
  double spread = 0;  // of the scores at first
  for (size_t i = 0; i < 5; ++i) {
    spread = std::max(spread, std::abs(lines[i]["objective/scores"].get<double>() - score(0)));
  }
  EXPECT_GT(score(25), score(0) + spread);
}

TEST_F(PpoTaskTest, ASeedGivesTheSameAgain) {
  Result();
  const std::vector<Json> first = Lines();
  Result();
  EXPECT_EQ(Lines(), first);
  training()["seed"] = 4;
  Result();
  EXPECT_NE(Lines(), first);
}

TEST_F(PpoTaskTest, ARestartGoesOnExactly) {
  training().update({{"steps", 4}, {"save_freq", 2}, {"learning_rate", 1e-3}});
  const Json whole = Result();
  const std::vector<Json> lines = Lines();
  const std::string weights =
      ReadFile(fs::path(whole["final_model_path"]) / "model.safetensors").value();
  // As if the ranks had been killed in the fourth update.
  fs::remove_all(dir_ / "T1/checkpoints/checkpoint-4");
  fs::remove_all(dir_ / "T1/checkpoints/final_model");
  const Json rest = Result(/*restarts=*/1);
  EXPECT_THAT(log_, Contains(HasSubstr("restart 1: going on after step 2")));
  EXPECT_EQ(Lines(), lines);
  EXPECT_EQ(ReadFile(fs::path(rest["final_model_path"]) / "model.safetensors").value(), weights);
}

TEST_F(PpoTaskTest, WithoutARewardModelTheValueHeadScores) {
  spec_.erase("reward_model");
  spec_.erase("data");
  training()["save_model"] = false;
  const Json result = Result();
  EXPECT_THAT(log_, Contains(HasSubstr("spec.reward_model: none is given")));
  EXPECT_EQ(result["demo_data"], true);
  EXPECT_NE(result["metrics"]["objective/scores"], 0.0);
}

TEST_F(PpoTaskTest, SentimentIsPositiveMinusNegative) {
  training().update({{"steps", 1}, {"learning_rate", 1e-30}, {"save_model", false}});
  const auto score = [&](Json reward) {
    reward["identifier"] = Classifier("bert");
    spec_["reward_model"] = std::move(reward);
    return Result()["metrics"]["objective/scores"].get<double>();
  };
  const double positive = score({{"positive_label", 1.0}}),
               negative = score({{"positive_label", 0}});
  EXPECT_NEAR(score({{"type", "Sentiment"}, {"positive_label", 1}, {"negative_label", "0"}}),
              positive - negative, 1e-5);
  EXPECT_NEAR(score({{"positive_label", 1}, {"scale", -2}}), -2 * positive, 1e-5);
}

TEST_F(PpoTaskTest, NumbersThatDoNotFitAreAdjustedWithAWarning) {
  training().update({{"per_device_train_batch_size", 50},
                     {"num_train_epochs", 0.5},
                     {"kl_coef", 0},
                     {"max_seq_length", 100000},
                     {"save_model", false}});
  training().erase("steps");
  spec_["generation"].update({{"temperature", 0}, {"top_k", 5}});
  spec_["reward_model"]["device"] = "cuda";
  const Json result = Result();
  EXPECT_EQ(result["metrics"]["episode"], 3) << "as many as there are rows";
  EXPECT_EQ(result["epochs_completed"], 1.0);
  for (const char* warning :
       {"spec.training.num_train_epochs: 0.5 raised to 1",
        "spec.training.kl_coef: 0 keeps the default, 0.05",
        "spec.training.max_seq_length: queries are cut to ",
        "spec.generation.temperature: expected a number above 0: 0.7 is used",
        "ignored field spec.generation.top_k", "ignored field spec.reward_model.device"}) {
    EXPECT_THAT(log_, Contains(HasSubstr(warning)));
  }
}

TEST_F(PpoTaskTest, MistakesNameTheField) {
  struct Case {
    const char* path;  // a JSON pointer
    Json value;
    const char* error;
  };
  const Case cases[] = {
      {"/training/num_mini_batches", 3,
       "spec.training.num_mini_batches: expected a divisor of the 2 rows of a local batch (batch "
       "size times accumulation), got 3"},
      {"/training/num_mini_batches", 0,
       "spec.training.num_mini_batches: expected an integer of at least 1, got 0"},
      {"/training/whiten_rewards", true,
       "spec.training.whiten_rewards: expected mini-batches of at least 8 rows, got 2"},
      {"/training/ppo_epochs", "many",
       "spec.training.ppo_epochs: expected an integer of at least 1, got \"many\""},
      {"/training/steps", 0, "spec.training.steps: expected an integer of at least 1, got 0"},
      {"/training/per_device_train_batch_size", -1,
       "spec.training.per_device_train_batch_size: expected an integer of at least 1, got -1"},
      {"/training/kl_coef", -0.1,
       "spec.training.kl_coef: expected a number of at least 0, got -0.1"},
      {"/training/gamma", 1.5,
       "spec.training.gamma: expected a number of at least 0 and at most 1, got 1.5"},
      {"/training/lam", -1,
       "spec.training.lam: expected a number of at least 0 and at most 1, got -1"},
      {"/training/cliprange", "x",
       "spec.training.cliprange: expected a number of at least 0, got \"x\""},
      {"/training/cliprange_value", -1,
       "spec.training.cliprange_value: expected a number of at least 0, got -1"},
      {"/training/vf_coef", Json::array(),
       "spec.training.vf_coef: expected a number of at least 0, got a list"},
      {"/training/missing_eos_penalty", "much",
       "spec.training.missing_eos_penalty: expected a number, got \"much\""},
      {"/generation", 5, "spec.generation: expected a map, got 5"},
      {"/generation/max_new_tokens", 0,
       "spec.generation.max_new_tokens: expected an integer of at least 1, got 0"},
      {"/generation/max_new_tokens", 1 << 20,
       "spec.generation.max_new_tokens: expected an integer below the model's limit of "},
      {"/generation/stop", "###", "spec.generation.stop: expected eos, got \"###\""},
      {"/reward_model", "x", "spec.reward_model: expected a map, got \"x\""},
      {"/reward_model/identifier", "", "spec.reward_model.identifier: "},
      {"/reward_model/identifier", "/no/such", "spec.reward_model.identifier: "},
      {"/reward_model/type", "regression",
       "spec.reward_model.type: expected classification or sentiment, got \"regression\""},
      {"/reward_model/scale", "big", "spec.reward_model.scale: expected a number, got \"big\""},
      {"/reward_model/max_length", 0,
       "spec.reward_model.max_length: expected an integer of at least 1, got 0"},
      {"/reward_model/positive_label", "joy", "spec.reward_model.positive_label: "},
      {"/reward_model/negative_label", 99, "spec.reward_model.negative_label: "},
      {"/data/prompts", Json::array(), "spec.data.prompts: "},
      {"/data/prompts/1", "", "spec.data: query 2 has no token"},
  };
  // A tokenizer without BOS, so that an empty text has no token.
  spec_["model"]["source"]["identifier"] = model::ModelGolden("gpt2").string();
  const Json good = spec_;
  for (const Case& c : cases) {
    spec_ = good;
    spec_[Json::json_pointer(c.path)] = c.value;
    failure_ = Json();
    EXPECT_THAT(Error(), testing::StartsWith(c.error)) << c.path;
    EXPECT_THAT(failure_.value("error_message", ""), testing::StartsWith(c.error)) << c.path;
  }
}

TEST_F(PpoTaskTest, ARewardModelThatIsNoneFailsTheTask) {
  spec_["reward_model"]["identifier"] = model::ModelGolden("llama").string();
  EXPECT_THAT(Error(), AllOf(HasSubstr("spec.reward_model.identifier: "), HasSubstr("score")));
  spec_["reward_model"]["identifier"] = "no-such/model";
  EXPECT_THAT(Error(), HasSubstr("spec.reward_model.identifier: "));
  EXPECT_THAT(Error(), Not(HasSubstr("spec.model")));
}

TEST_F(PpoTaskTest, StopsInARollout) {
  stopped_ = true;
  EXPECT_TRUE(absl::IsCancelled(Run().status()));
}

}  // namespace
}  // namespace flowmesh::tasks
