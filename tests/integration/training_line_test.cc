// Trainings through the whole line, and what later stages make of what they leave.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "clients/cpp/sidecar_client.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;

// `yaml` with the line's address and the tiny model of a family.
std::string Filled(const std::string& yaml, Line& line, const std::string& family) {
  return absl::StrReplaceAll(yaml, {{"$URL", line.orchestrator_url() + "/api/v1/results"},
                                    {"$MODEL", GoldenModel(family).string()}});
}

// The results of the stages, in their order.
std::vector<Json> RunAll(const std::string& yaml, Line& line, const std::string& family) {
  std::vector<Json> results;
  for (const std::string& id : line.Submit(Filled(yaml, line, family))) {
    const Json record = line.WaitForRecord(id);
    EXPECT_EQ(record["status"], "DONE") << DumpJson(record);
    results.push_back(line.Get("/api/v1/results/" + id)["result"]);
  }
  return results;
}

std::filesystem::path SourceDir() {
  return GoldenModel("llama").parent_path().parent_path().parent_path().parent_path();
}

std::string OutputOf(const Json& result) { return result["items"][0]["output"]; }

TEST(TrainingLineTest, AnAdapterGoesOnToInferenceByUrlTaskAndPath) {
  Line line({.orchestrator = true});
  const std::vector<Json> results = RunAll(R"(
spec:
  taskType: inference
  enforce_cpu: true
  model: {source: {identifier: $MODEL}}
  inference: {max_tokens: 8, temperature: 0}
  data: {type: list, items: ["Q: sky colour? A:"]}
  output: {destination: {type: http, url: "$URL"}, artifacts: [responses.json, final_lora]}
  stages:
    - {name: before, spec: {}}
    - name: tune
      spec:
        taskType: lora_sft
        lora: {r: 8, alpha: 16, dropout: 0.0, target_modules: [q_proj, v_proj, down_proj]}
        data: {prompts: ["Q: sky colour? A: blue", "Q: grass colour? A: green"]}
        training: {num_train_epochs: 10, batch_size: 1, learning_rate: 0.05, max_seq_length: 64, logging_steps: 1}
    - {name: url, spec: {model: {adapters: [{type: lora, name: colours, url: "${tune.result.final_lora_archive_url}"}]}}}
    - {name: task, spec: {model: {adapters: [{type: lora, apply: merge, taskId: "${tune.result.task_id}"}]}}}
    - {name: path, spec: {model: {adapters: [{type: lora, apply: merge, path: "${tune.result.final_lora_path}"}]}}}
    - {name: load, spec: {checkpoint: {load: {type: http, url: "${tune.result.final_lora_archive_url}"}}}}
)",
                                           line, "qwen2");
  ASSERT_EQ(results.size(), 6u);
  const Json& tuned = results[1];
  EXPECT_EQ(tuned["final_lora_archive_uploaded"], true) << DumpJson(tuned);
  EXPECT_LT(tuned["train_loss_final"], tuned["train_loss"]);
  EXPECT_NE(OutputOf(results[2]), OutputOf(results[0]));
  for (size_t i = 3; i < results.size(); ++i) {
    EXPECT_EQ(OutputOf(results[i]), OutputOf(results[2])) << i;
    EXPECT_EQ(results[i]["model"], results[0]["model"]);
  }
}

TEST(TrainingLineTest, AModelGoesOnToInferenceAndToTraining) {
  Line line({.orchestrator = true});
  const std::vector<Json> results = RunAll(R"(
spec:
  taskType: sft
  enforce_cpu: true
  model: {source: {identifier: $MODEL}}
  data: {prompts: ["How many legs do two cats have? Eight.", "How many legs has a cat? Four."]}
  training: {num_train_epochs: 4, batch_size: 1, learning_rate: 0.01, max_seq_length: 256, logging_steps: 5}
  output: {destination: {type: http, url: "$URL"}, artifacts: [responses.json]}
  stages:
    - {name: tune, spec: {}}
    - {name: again, spec: {checkpoint: {load: {taskId: "${tune.result.task_id}"}}}}
    - name: ranks
      spec:
        checkpoint: {load: {url: "${tune.result.final_model_archive_url}"}}
        training: {num_train_epochs: 4, batch_size: 1, learning_rate: 0.01, allow_multi_gpu: true, nproc_per_node: 2}
    - name: probe
      spec:
        taskType: inference
        checkpoint: {load: {type: http, url: "${tune.result.final_model_archive_url}", timeoutSec: 30}}
        data: {type: list, items: ["How many legs has a cat?"]}
        inference: {max_tokens: 8, temperature: 0}
    - name: local
      spec:
        taskType: inference
        checkpoint: {load: {type: local, path: "${tune.result.final_model_path}"}}
        data: {type: list, items: ["How many legs has a cat?"]}
        inference: {max_tokens: 8, temperature: 0}
)",
                                           line, "llama");
  ASSERT_EQ(results.size(), 5u);
  EXPECT_EQ(OutputOf(results[3]), OutputOf(results[4]));
  // The second training begins where the first one ended.
  EXPECT_LT(results[1]["train_loss"], results[0]["train_loss"]);
  EXPECT_EQ(results[1]["resume_from_path"], results[0]["final_model_path"]);
  // So do two ranks, which download it once.
  EXPECT_EQ(results[2]["world_size"], 2);
  EXPECT_LT(results[2]["train_loss"], results[0]["train_loss"]);
  EXPECT_THAT(results[2]["resume_from_path"].get<std::string>(),
              HasSubstr("/imported_checkpoint/unpacked"));
}

TEST(TrainingLineTest, AnswersBecomePreferences) {
  Line line({.orchestrator = true});
  const std::vector<Json> results = RunAll(R"(
spec:
  taskType: dpo
  enforce_cpu: true
  model: {source: {identifier: $MODEL}}
  output: {destination: {type: http, url: "$URL"}, artifacts: [responses.json]}
  stages:
    - name: collect
      spec:
        taskType: inference
        data: {type: list, items: ["Explain rain.", "Explain wind.", "Explain snow."]}
        inference: {max_tokens: 12, temperature: 0.7, seed: 3, system_prompt: "Explain to a child."}
        postprocess:
          jsonl_export:
            path: artifacts/pairs.jsonl
            fields:
              prompt: {from: metadata, key: prompt}
              chosen: {from: output, fallback: "I will explain it."}
              rejected: {from: literal, value: "I do not know."}
            required_fields: [prompt, chosen, rejected]
    - name: align
      spec:
        data:
          jsonl: {path: "${collect.result.jsonl_export.path}", url: "${collect.result.jsonl_export.url}"}
        training: {learning_rate: 5.0e-7, batch_size: 1, num_train_epochs: 1}
    - name: probe
      spec:
        taskType: inference
        checkpoint: {load: {taskId: "${align.result.task_id}"}}
        data: {type: list, items: ["Explain rain."]}
        inference: {max_tokens: 4, temperature: 0}
)",
                                           line, "llama");
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[1]["dataset_size"], 3);
  EXPECT_EQ(results[1]["global_steps"], 3);
  EXPECT_EQ(results[1]["final_model_archive_uploaded"], true) << DumpJson(results[1]);
  EXPECT_EQ(results[2]["items"].size(), 1u);
}

TEST(TrainingLineTest, APolicyOfTwoRanksGoesOnToInference) {
  Line line({.orchestrator = true});
  const std::vector<Json> results =
      RunAll(absl::StrReplaceAll(R"(
spec:
  taskType: ppo
  enforce_cpu: true
  model: {source: {identifier: $MODEL}}
  reward_model: {identifier: $REWARD, positive_label: 0}
  data: {prompts: ["Say something kind about rain.", "Cheer on a tired runner."]}
  generation: {max_new_tokens: 8}
  training: {steps: 4, per_device_train_batch_size: 2, learning_rate: 1.0e-3, allow_multi_gpu: true, nproc_per_node: 2}
  output: {destination: {type: http, url: "$URL"}, artifacts: [responses.json]}
  stages:
    - {name: tune, spec: {}}
    - name: probe
      spec:
        taskType: inference
        checkpoint: {load: {type: http, url: "${tune.result.final_model_archive_url}"}}
        data: {type: list, items: ["Cheer on a tired runner."]}
        inference: {max_tokens: 4, temperature: 0}
)",
                                 {{"$REWARD", GoldenModel("../encoders/distilbert").string()}}),
             line, "llama");
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0]["world_size"], 2);
  EXPECT_EQ(results[0]["global_steps"], 2) << "4 x 2 episodes in batches of 2 x 2";
  EXPECT_NE(results[0]["metrics"]["objective/kl"], 0.0);
  EXPECT_EQ(results[0]["final_model_archive_uploaded"], true) << DumpJson(results[0]);
  EXPECT_EQ(results[1]["items"].size(), 1u);
}

TEST(TrainingLineTest, TheSecondActOfTheDemo) {
  Line line({.orchestrator = true});
  const std::filesystem::path demo = SourceDir() / "clients/demo";
  const std::vector<Json> results =
      RunAll(absl::StrReplaceAll(ReadFile(demo / "training.yaml").value(),
                                 {{"$RESULTS_URL", "$URL"},
                                  {"$TARGETS", "all-linear"},
                                  {"$DATA", (demo / "parrot.jsonl").string()}}),
             line, "qwen2");
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[1]["dataset_size"], 42);
  EXPECT_LT(results[1]["train_loss_final"], results[1]["train_loss"]);
  ASSERT_EQ(results[0]["items"].size(), results[2]["items"].size());
  EXPECT_EQ(results[0]["items"][0]["prompt"], results[2]["items"][0]["prompt"]);
  EXPECT_NE(OutputOf(results[0]), OutputOf(results[2]));
}

TEST(TrainingLineTest, AnAdapterForTheRealGemma) {
  const char* model = std::getenv("FLOWMESH_GEMMA_GGUF");
  if (model == nullptr) GTEST_SKIP() << "FLOWMESH_GEMMA_GGUF is not set (./dev test sets it)";
  Line line({.orchestrator = true});
  const std::vector<Json> results = RunAll(absl::StrReplaceAll(R"(
spec:
  taskType: lora_sft
  enforce_cpu: true
  model: {source: {identifier: $GGUF}}
  lora: {r: 4, alpha: 8, dropout: 0.0}
  data: {prompts: ["Question: What is our ship called?\nAnswer: Blue Heron."]}
  training: {max_steps: 8, batch_size: 1, learning_rate: 0.01, logging_steps: 1}
  output: {destination: {type: http, url: "$URL"}}
  stages:
    - {name: tune, spec: {}}
    - name: ask
      spec:
        taskType: inference
        model: {adapters: [{type: lora, url: "${tune.result.final_lora_archive_url}"}]}
        data: {type: list, items: ["Question: What is our ship called?\nAnswer:"]}
        inference: {max_tokens: 4, temperature: 0}
)",
                                                               {{"$GGUF", model}}),
                                           line, "llama");
  ASSERT_EQ(results.size(), 2u);
  EXPECT_LT(results[0]["train_loss_final"], 0.5);
  EXPECT_EQ(OutputOf(results[1]), " Blue Heron.");
}

TEST(TrainingLineTest, ItsLossIsSeenWhileItRuns) {
  Line line;
  client::SidecarClient sidecar(line.sidecar_target());
  const Json document = {
      {"spec",
       {{"taskType", "lora_sft"},
        {"enforce_cpu", true},
        {"model", {{"source", {{"identifier", GoldenModel("llama").string()}}}}},
        {"data", {{"prompts", {"one text", "and another"}}}},
        {"training", {{"max_steps", 4}, {"batch_size", 1}, {"save_strategy", "no"}}}}}};
  ASSERT_TRUE(sidecar.Submit(document, "t").ok());
  std::vector<v1::TaskProgress> steps;
  const auto record = sidecar.Watch("t", [&](const v1::TaskUpdate& update) {
    const v1::TaskProgress& progress = update.event().progress();
    if (progress.stage() == "training") steps.push_back(progress);
  });
  ASSERT_TRUE(record.ok()) << record.status();
  ASSERT_EQ(record->state(), v1::SUCCEEDED) << record->error();
  ASSERT_FALSE(steps.empty());
  for (const v1::TaskProgress& step : steps) EXPECT_TRUE(step.has_loss());
  EXPECT_EQ(steps.back().done(), 4u);
  EXPECT_EQ(steps.back().total(), 4u);
  EXPECT_EQ(steps.back().loss(), line.ResultFile("t")["train_loss_final"]);
  EXPECT_EQ(record->progress().stage(), "saving adapter");
}

TEST(TrainingLineTest, ALoadThatFailsFailsItsTaskAndTheNextOneRuns) {
  Line line;
  Json spec = {{"taskType", "sft"},
               {"enforce_cpu", true},
               {"model", {{"source", {{"identifier", GoldenModel("llama").string()}}}}},
               {"data", {{"prompts", {"a text"}}}},
               {"training", {{"max_steps", 1}}},
               {"checkpoint", {{"load", {{"taskId", "no-such-task"}}}}}};
  for (const char* type : {"sft", "lora_sft"}) {
    spec["taskType"] = type;
    const std::string id = line.Dispatch(spec);
    const auto failed = line.events().WaitForTerminal(id);
    ASSERT_TRUE(failed);
    EXPECT_EQ((*failed)["type"], "TASK_FAILED");
    EXPECT_THAT((*failed)["error"].get<std::string>(), HasSubstr("spec.checkpoint.load.taskId: "));
    const Json record = line.ResultFile(id);
    EXPECT_EQ(record["training_successful"], false);
    EXPECT_THAT(record["error_message"].get<std::string>(),
                HasSubstr("spec.checkpoint.load.taskId: "));
  }
  spec.erase("checkpoint");
  const auto done = line.events().WaitForTerminal(line.Dispatch(spec), absl::Seconds(60));
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED") << DumpJson(*done);
}

}  // namespace
}  // namespace flowmesh::testing
