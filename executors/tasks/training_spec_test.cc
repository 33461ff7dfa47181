// Every field of a training's spec that can be wrong: the error names its path, what was expected
// and what was found.
#include "executors/tasks/training_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"
#include "executors/tasks/training.h"

namespace flowmesh::tasks {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

// A value that a field cannot have, as JSON, and what is said of it.
struct Wrong {
  const char* field;
  const char* value;
  const char* error;
};

class TrainingSpecTest : public TaskTest {
 protected:
  // `spec` as the types with these defaults read it.
  absl::StatusOr<TrainingSpec> Read(const Json& spec, const TrainingDefaults& defaults = {}) {
    log_.clear();
    const Json document = {{"spec", spec}};
    return ReadTrainingSpec(Field(&document, "")["spec"], defaults, use_cuda_, ranks_,
                            [this](const std::string& text) { log_.push_back(text); });
  }
  int ranks_ = 1;
  bool use_cuda_ = false;
  using Task = absl::StatusOr<TaskOutcome> (*)(const TaskContext&, const TrainingDevice&,
                                               const EnvLookup&);
  // What a task says of spec_, having loaded nothing.
  std::string ErrorOf(Task task) {
    const auto no_env = [](std::string_view) -> std::optional<std::string> { return std::nullopt; };
    const auto outcome = task(Context(), TrainingDevice(), no_env);
    EXPECT_FALSE(outcome.ok());
    EXPECT_EQ(failure_["error_message"], Message(outcome.status()));
    EXPECT_TRUE(progress_.empty());
    return Message(outcome.status());
  }
};

constexpr Wrong kTraining[] = {
    {"num_train_epochs", R"("many")",
     R"(spec.training.num_train_epochs: expected a number above 0, got "many")"},
    {"num_train_epochs", "0", "spec.training.num_train_epochs: expected a number above 0, got 0"},
    {"batch_size", R"("two")",
     R"(spec.training.batch_size: expected an integer of at least 1, got "two")"},
    {"batch_size", "0", "spec.training.batch_size: expected an integer of at least 1, got 0"},
    {"batch_size", "1.5", "spec.training.batch_size: expected an integer of at least 1, got 1.5"},
    {"per_device_train_batch_size", "-1",
     "spec.training.per_device_train_batch_size: expected an integer of at least 1, got -1"},
    {"per_device_batch_size", "[]",
     "spec.training.per_device_batch_size: expected an integer of at least 1, got a list"},
    {"gradient_accumulation_steps", "0",
     "spec.training.gradient_accumulation_steps: expected an integer of at least 1, got 0"},
    {"gradient_accumulation_steps", "true",
     "spec.training.gradient_accumulation_steps: expected an integer of at least 1, got true"},
    {"learning_rate", R"("fast")",
     R"(spec.training.learning_rate: expected a number above 0, got "fast")"},
    {"learning_rate", "0", "spec.training.learning_rate: expected a number above 0, got 0"},
    {"learning_rate", "{}", "spec.training.learning_rate: expected a number above 0, got a map"},
    {"warmup_steps", "-1", "spec.training.warmup_steps: expected an integer of at least 0, got -1"},
    {"warmup_steps", R"("few")",
     R"(spec.training.warmup_steps: expected an integer of at least 0, got "few")"},
    {"warmup_ratio", "-0.1",
     "spec.training.warmup_ratio: expected a number of at least 0 and at most 1, got -0.1"},
    {"warmup_ratio", "1.5",
     "spec.training.warmup_ratio: expected a number of at least 0 and at most 1, got 1.5"},
    {"lr_scheduler_type", R"("polynomial")",
     "spec.training.lr_scheduler_type: expected linear, cosine, constant or constant_with_warmup, "
     "got \"polynomial\""},
    {"lr_scheduler_type", "3",
     "spec.training.lr_scheduler_type: expected linear, cosine, constant or constant_with_warmup, "
     "got 3"},
    {"weight_decay", "-0.1",
     "spec.training.weight_decay: expected a number of at least 0, got -0.1"},
    {"max_grad_norm", "-1", "spec.training.max_grad_norm: expected a number of at least 0, got -1"},
    {"max_grad_norm", R"("inf")",
     R"(spec.training.max_grad_norm: expected a number of at least 0, got "inf")"},
    {"adam_beta1", "1",
     "spec.training.adam_beta1: expected a number of at least 0 and below 1, got 1"},
    {"adam_beta2", "-0.5",
     "spec.training.adam_beta2: expected a number of at least 0 and below 1, got -0.5"},
    {"adam_epsilon", "0", "spec.training.adam_epsilon: expected a number above 0, got 0"},
    {"max_steps", "-2", "spec.training.max_steps: expected an integer of at least -1, got -2"},
    {"max_steps", R"("all")",
     R"(spec.training.max_steps: expected an integer of at least -1, got "all")"},
    {"seed", "-1", "spec.training.seed: expected an integer of at least 0, got -1"},
    {"seed", R"("lucky")", R"(spec.training.seed: expected an integer of at least 0, got "lucky")"},
    {"logging_steps", "0", "spec.training.logging_steps: expected an integer of at least 1, got 0"},
    {"save_strategy", R"("best")",
     R"(spec.training.save_strategy: expected steps, epoch or no, got "best")"},
    {"save_strategy", "1", "spec.training.save_strategy: expected steps, epoch or no, got 1"},
    {"save_steps", "0", "spec.training.save_steps: expected an integer of at least 1, got 0"},
    {"save_freq", R"("often")",
     R"(spec.training.save_freq: expected an integer of at least 1, got "often")"},
    {"save_total_limit", "-1",
     "spec.training.save_total_limit: expected an integer of at least 0, got -1"},
    {"save_model", R"("perhaps")",
     R"(spec.training.save_model: expected true or false, got "perhaps")"},
    {"gradient_checkpointing", "2",
     "spec.training.gradient_checkpointing: expected true or false, got 2"},
    {"fp16", R"("half")", R"(spec.training.fp16: expected true or false, got "half")"},
    {"bf16", "[true]", "spec.training.bf16: expected true or false, got a list"},
    {"resume_from_path", R"("/no/such")", "spec.training.resume_from_path: there is no /no/such"},
    {"resume_from_path", "4", "spec.training.resume_from_path: expected a string, got 4"},
    {"auto_deepspeed", R"("sometimes")",
     R"(spec.training.auto_deepspeed: expected true or false, got "sometimes")"},
    {"auto_deepspeed_stage", R"("two")",
     R"(spec.training.auto_deepspeed_stage: expected an integer, got "two")"},
    {"zero_stage", "1.5", "spec.training.zero_stage: expected an integer, got 1.5"},
    {"deepspeed", "7",
     "spec.training.deepspeed: expected a map, the path of a JSON file, or auto, got 7"},
    {"deepspeed", R"("/no/such.json")",
     "spec.training.deepspeed: cannot open /no/such.json: No such file or directory"},
    {"deepspeed", R"({"zero_optimization": {"stage": 4}})",
     "spec.training.deepspeed.zero_optimization.stage: expected an integer from 0 to 3, got 4"},
    {"deepspeed", R"({"zero_optimization": {"stage": "all"}})",
     R"(spec.training.deepspeed.zero_optimization.stage: expected an integer from 0 to 3, got "all")"},
    {"deepspeed", R"({"train_micro_batch_size_per_gpu": 0})",
     "spec.training.deepspeed.train_micro_batch_size_per_gpu: expected an integer of at least 1, "
     "got 0"},
    {"deepspeed", R"({"gradient_accumulation_steps": "two"})",
     R"(spec.training.deepspeed.gradient_accumulation_steps: expected an integer of at least 1, got "two")"},
    {"deepspeed", R"({"bf16": {"enabled": "maybe"}})",
     R"(spec.training.deepspeed.bf16.enabled: expected true or false, got "maybe")"},
    {"deepspeed", R"({"fp16": {"enabled": []}})",
     "spec.training.deepspeed.fp16.enabled: expected true or false, got a list"},
};

TEST_F(TrainingSpecTest, TrainingFields) {
  for (const Wrong& wrong : kTraining) {
    Json training = Json::object();
    training[wrong.field] = ParseJson(wrong.value).value();
    EXPECT_EQ(Message(Read({{"training", training}}).status()), wrong.error);
  }
  EXPECT_EQ(Message(Read({{"training", {1}}}).status()),
            "spec.training: expected a map, got a list");
}

// The table of TASKS.md 4.3.
TEST_F(TrainingSpecTest, PrecisionOfTheTypes) {
  constexpr TrainingDefaults kSft = {.bf16_weights = true}, kLora, kDpo = {.bf16_on_gpu = true};
  const auto precision = [this](const TrainingDefaults& type, const Json& training) {
    const auto spec = Read({{"training", training}}, type);
    if (!spec.ok()) return std::string(Message(spec.status()));
    EXPECT_EQ(spec->trainer.scale_loss, spec->precision() == std::string("fp16"));
    return absl::StrCat(spec->autocast ? "autocast to " : "", spec->precision());
  };
  const Json none = Json::object(), bf16 = {{"bf16", true}}, fp16 = {{"fp16", true}};
  const Json both = {{"bf16", true}, {"fp16", true}}, off = {{"bf16", false}};
  use_cuda_ = true;
  EXPECT_EQ(precision(kSft, none), "fp32");
  EXPECT_EQ(precision(kSft, bf16), "bf16");
  EXPECT_EQ(precision(kSft, fp16), "autocast to fp16");
  EXPECT_EQ(precision(kLora, none), "fp32");
  EXPECT_EQ(precision(kLora, bf16), "autocast to bf16");
  EXPECT_EQ(precision(kLora, fp16), "autocast to fp16");
  EXPECT_EQ(precision(kDpo, none), "autocast to bf16");
  EXPECT_EQ(precision(kDpo, fp16), "autocast to fp16");
  EXPECT_EQ(precision(kDpo, both), "autocast to bf16");
  EXPECT_EQ(precision(kDpo, off), "fp32");
  use_cuda_ = false;
  EXPECT_EQ(precision(kDpo, none), "fp32");
  EXPECT_EQ(precision(kLora, fp16), "fp32");
  EXPECT_THAT(log_, Contains(HasSubstr("spec.training.fp16: ignored")));
}

constexpr Wrong kModel[] = {
    {"/model", R"(["gpt2"])", "spec.model: expected a map, got a list"},
    {"/model/source", R"("gpt2")", R"(spec.model.source: expected a map, got "gpt2")"},
    {"/model/source/identifier", "5", "spec.model.source.identifier: expected a string, got 5"},
    {"/model/source/revision", "{}", "spec.model.source.revision: expected a string, got a map"},
    {"/checkpoint/load", "[]", "spec.checkpoint.load: expected a map, got a list"},
    {"/checkpoint/load", "{}", "spec.checkpoint.load: one of path, taskId or url is required"},
    {"/checkpoint/load/type", R"("s3")",
     R"(spec.checkpoint.load.type: expected local or http, got "s3")"},
    {"/checkpoint/load/taskId", R"("../T1")",
     R"(spec.checkpoint.load.taskId: expected a task id, got "../T1")"},
    {"/checkpoint/load/url", R"("ftp://x/y")",
     "spec.checkpoint.load.url: expected an http or https URL"},
    {"/checkpoint/load/timeoutSec", R"("soon")",
     R"(spec.checkpoint.load.timeoutSec: expected a number above 0, got "soon")"},
    {"/checkpoint/load/archive_format", R"("rar")",
     R"(spec.checkpoint.load.archive_format: expected auto, none, tar, tar.gz, tgz, tar.bz2, tar.xz or zip, got "rar")"},
};

TEST_F(TrainingSpecTest, ATotalOfDeepSpeedFillsWhatIsLeftOut) {
  ranks_ = 2;
  // Batch size and accumulation.
  const auto read = [this](const Json& deepspeed, Json training = Json::object()) {
    training["deepspeed"] = deepspeed;
    const auto spec = Read({{"training", training}}, {.batch_size = 8});
    if (!spec.ok()) return Message(spec.status());
    return absl::StrCat(spec->trainer.batches.batch_size, " x ",
                        spec->trainer.batches.accumulation);
  };
  EXPECT_EQ(read({{"train_batch_size", 24}}), "12 x 1");
  EXPECT_EQ(read({{"train_batch_size", 24}, {"gradient_accumulation_steps", 3}}), "4 x 3");
  EXPECT_EQ(read({{"train_batch_size", 24}, {"train_micro_batch_size_per_gpu", 2}}), "2 x 6");
  EXPECT_EQ(read({{"train_batch_size", 24}, {"gradient_accumulation_steps", "auto"}},
                 {{"batch_size", 4}}),
            "4 x 3");
  EXPECT_EQ(read({{"train_batch_size", "auto"}}), "8 x 1");
  EXPECT_EQ(
      read({{"train_batch_size", 24}}, {{"batch_size", 5}, {"gradient_accumulation_steps", 1}}),
      "5 x 1");  // what the training says counts
  EXPECT_EQ(read({{"train_batch_size", 24}}, {{"batch_size", 5}}),
            "spec.training.deepspeed.train_batch_size: expected a multiple of 10, the ranks times "
            "the batch size, got 24");
  EXPECT_EQ(read({{"train_batch_size", 0}}),
            "spec.training.deepspeed.train_batch_size: expected an integer of at least 1, got 0");
}

TEST_F(TrainingSpecTest, ModelAndCheckpoint) {
  for (const Wrong& wrong : kModel) {
    Json spec = {{"checkpoint", {{"load", {{"url", "http://127.0.0.1:1/m"}}}}}};
    spec[Json::json_pointer(wrong.field)] = ParseJson(wrong.value).value();
    EXPECT_EQ(Message(Read(spec).status()), wrong.error);
  }
}

constexpr Wrong kSft[] = {
    {"/training/max_seq_length", "0",
     "spec.training.max_seq_length: expected an integer of at least 1, got 0"},
    {"/training/max_length", R"("long")",
     R"(spec.training.max_length: expected an integer of at least 1, got "long")"},
    {"/training/packing", R"("tight")",
     R"(spec.training.packing: expected true or false, got "tight")"},
    {"/training", "7", "spec.training: expected a map, got 7"},
    {"/enforce_cpu", R"("maybe")", R"(spec.enforce_cpu: expected true or false, got "maybe")"},
    {"/data", "null", "spec.data: required"},
    {"/data", "[]", "spec.data: expected a map, got a list"},
    {"/data", R"({"items": ["a"]})",
     "spec.data: expected one of jsonl, dataset_name and prompts, got none of them"},
    {"/data/prompts", "[]", "spec.data.prompts: expected a non-empty list, got an empty one"},
    {"/data/prompts", R"("one text")", R"(spec.data.prompts: expected a list, got "one text")"},
    {"/data/max_samples", "0", "spec.data.max_samples: expected an integer of at least 1, got 0"},
    {"/data/max_samples", R"("some")",
     R"(spec.data.max_samples: expected an integer of at least 1, got "some")"},
    {"/data/jsonl", R"("file.jsonl")", R"(spec.data.jsonl: expected a map, got "file.jsonl")"},
    {"/data/jsonl", "{}",
     "spec.data.jsonl: expected one of download_url, url, path and worker_path, got none"},
    {"/data/jsonl", R"({"path": 3})", "spec.data.jsonl.path: expected a string, got 3"},
    {"/data/jsonl", R"({"path": "d.jsonl", "text_field": 1})",
     "spec.data.jsonl.text_field: expected a string, got 1"},
    {"/data/jsonl", R"({"path": "d.jsonl", "prompt_field": []})",
     "spec.data.jsonl.prompt_field: expected a string, got a list"},
    {"/data/jsonl", R"({"path": "d.jsonl", "separator": 1})",
     "spec.data.jsonl.separator: expected a string, got 1"},
    {"/data/jsonl", R"({"url": "http://h/d", "timeoutSec": 0})",
     "spec.data.jsonl.timeoutSec: expected a number above 0, got 0"},
    {"/data/jsonl", R"({"url": "http://h/d", "headers": ["a"]})",
     "spec.data.jsonl.headers: expected a map, got a list"},
    {"/data/dataset_name", "4", "spec.data.dataset_name: expected a string, got 4"},
    {"/data", R"({"dataset_name": "d", "split": "train[1"})",
     "spec.data.split: 'train[1': expected ] at the end; a split is written as train, "
     "train[10:20], train[:80%] or parts joined by +"},
    {"/data", R"({"dataset_name": "d", "split": 2})", "spec.data.split: expected a string, got 2"},
    {"/data", R"({"dataset_name": "d", "config_name": 2})",
     "spec.data.config_name: expected a string, got 2"},
    {"/data", R"({"dataset_name": "d", "revision": {}})",
     "spec.data.revision: expected a string, got a map"},
    {"/data", R"({"dataset_name": "d", "prompt_column": {}})",
     "spec.data.prompt_column: expected a string, got a map"},
    {"/data", R"({"dataset_name": "d", "response_column": 1})",
     "spec.data.response_column: expected a string, got 1"},
    {"/data", R"({"dataset_name": "d", "text_field": 1})",
     "spec.data.text_field: expected a string, got 1"},
};

constexpr Wrong kLora[] = {
    {"/lora", R"("small")", R"(spec.lora: expected a map, got "small")"},
    {"/lora/r", "0", "spec.lora.r: expected an integer of at least 1, got 0"},
    {"/lora/r", R"("eight")", R"(spec.lora.r: expected an integer of at least 1, got "eight")"},
    {"/lora/alpha", R"("twice")", R"(spec.lora.alpha: expected a number, got "twice")"},
    {"/lora/lora_alpha", "[]", "spec.lora.lora_alpha: expected a number, got a list"},
    {"/lora/dropout", "1", "spec.lora.dropout: expected a number of at least 0 and below 1, got 1"},
    {"/lora/dropout", R"("some")",
     R"(spec.lora.dropout: expected a number of at least 0 and below 1, got "some")"},
    {"/lora/lora_dropout", "-0.1",
     "spec.lora.lora_dropout: expected a number of at least 0 and below 1, got -0.1"},
    {"/lora/bias", R"("some")", R"(spec.lora.bias: expected none, all or lora_only, got "some")"},
    {"/lora/bias", "true", "spec.lora.bias: expected none, all or lora_only, got true"},
    {"/lora/target_modules", R"("q_proj")",
     R"(spec.lora.target_modules: expected a list of module names, or all-linear, got "q_proj")"},
    {"/lora/target_modules", "[]",
     "spec.lora.target_modules: expected at least one module name, got an empty list"},
    {"/lora/target_modules", "[1]", "spec.lora.target_modules[0]: expected a string, got 1"},
    {"/lora/target_modules", "{}",
     "spec.lora.target_modules: expected a list of module names, or all-linear, got a map"},
    {"/lora/task_type", R"("SEQ_CLS")",
     R"(spec.lora.task_type: expected CAUSAL_LM, got "SEQ_CLS")"},
    {"/lora/task_type", "1", "spec.lora.task_type: expected CAUSAL_LM, got 1"},
    {"/lora/use_rslora", R"("perhaps")",
     R"(spec.lora.use_rslora: expected true or false, got "perhaps")"},
};

constexpr Wrong kDpo[] = {
    {"/training/beta", "0", "spec.training.beta: expected a number above 0, got 0"},
    {"/training/beta", R"("small")",
     R"(spec.training.beta: expected a number above 0, got "small")"},
    {"/training/label_smoothing", "0.5",
     "spec.training.label_smoothing: expected a number of at least 0 and below 0.5, got 0.5"},
    {"/training/label_smoothing", "[]",
     "spec.training.label_smoothing: expected a number of at least 0 and below 0.5, got a list"},
    {"/training/max_prompt_length", "0",
     "spec.training.max_prompt_length: expected an integer of at least 1, got 0"},
    {"/training/max_length", "1",
     "spec.training.max_length: expected an integer of at least 2, got 1"},
    {"/training/loss_type", R"("ipo")", R"(spec.training.loss_type: expected sigmoid, got "ipo")"},
    {"/training/loss_type", "2", "spec.training.loss_type: expected sigmoid, got 2"},
    {"/data", "[1]", "spec.data: expected a map, got a list"},
    {"/data", R"({"prompts": ["a"]})",
     "spec.data: expected one of jsonl, dataset_name and preferences, got none of them"},
    {"/data/preferences", "[]",
     "spec.data.preferences: expected a non-empty list, got an empty one"},
    {"/data/preferences", "{}", "spec.data.preferences: expected a list, got a map"},
    {"/data/preferences", R"(["a"])", R"(spec.data.preferences[0]: expected a map, got "a")"},
    {"/data/preferences", R"([{"prompt": "a", "rejected": "b"}])",
     "spec.data.preferences[0].chosen: required"},
    {"/data/jsonl", R"({"path": "d.jsonl", "chosen_field": 1})",
     "spec.data.jsonl.chosen_field: expected a string, got 1"},
    {"/data", R"({"dataset_name": "d", "rejected_column": 1})",
     "spec.data.rejected_column: expected a string, got 1"},
};

TEST_F(TrainingSpecTest, FieldsOfTheTypes) {
  const Json base = {{"model", {{"source", {{"identifier", "/no/such/model"}}}}},
                     {"data", {{"prompts", {"a text"}}}}};
  const Json pairs = {
      {"model", {{"source", {{"identifier", "/no/such/model"}}}}},
      {"data", {{"preferences", {{{"prompt", "a"}, {"chosen", "b"}, {"rejected", "c"}}}}}}};
  const auto expect = [this](Task task, const Json& spec, const auto& table) {
    for (const Wrong& wrong : table) {
      spec_ = spec;
      spec_[Json::json_pointer(wrong.field)] = ParseJson(wrong.value).value();
      EXPECT_EQ(ErrorOf(task), wrong.error);
    }
  };
  expect(RunSft, base, kSft);
  expect(RunLoraSft, base, kSft);
  expect(RunLoraSft, base, kLora);
  expect(RunDpo, pairs, kDpo);
}

TEST_F(TrainingSpecTest, KeysThatNobodyReadsAreNamed) {
  constexpr TrainingDefaults kDefaults = {.own_keys = "packing max_length"};
  ASSERT_TRUE(Read({{"training",
                     {{"batch_size", 2},
                      {"packing", true},
                      {"log_with", "wandb"},
                      {"beta", 1},
                      {"steps", nullptr}}}},
                   kDefaults)
                  .ok());
  EXPECT_THAT(log_, UnorderedElementsAre("ignored field spec.training.log_with",
                                         "ignored field spec.training.beta"));
  spec_ = {{"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
           {"data", {{"prompts", {"a text"}}}},
           {"lora", {{"r", 2}, {"use_dora", true}}},
           {"training", {{"max_steps", 1}, {"save_strategy", "no"}, {"max_seq_length", 64}}}};
  const auto no_env = [](std::string_view) -> std::optional<std::string> { return std::nullopt; };
  ASSERT_TRUE(RunLoraSft(Context(), TrainingDevice(), no_env).ok());
  EXPECT_THAT(log_, Contains("ignored field spec.lora.use_dora"));
  EXPECT_THAT(log_, Not(Contains(HasSubstr("spec.training."))));
}

}  // namespace
}  // namespace flowmesh::tasks
