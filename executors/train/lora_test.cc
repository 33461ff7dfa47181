// Adapters against PEFT and TRL (tests/goldens/train/lora).
#include "executors/train/lora.h"

#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/files.h"
#include "executors/model/model_folder.h"
#include "executors/model/model_goldens.h"
#include "executors/train/recompute.h"
#include "executors/train/sft.h"
#include "executors/train/train_goldens.h"

namespace flowmesh::train {
namespace {

using ::testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(Message(status)); }

class LoraCurveTest : public testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path Folder(const char* which) {
    return TrainGolden(std::string("lora/") + GetParam() + "/" + which);
  }
};

TEST_P(LoraCurveTest, EqualsPeft) {
  const Json golden = ReadTrainGolden(std::string("lora/") + GetParam() + ".json");
  const Json& training = golden["training"];
  const std::string family = golden["model"];
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family);
  const auto texts = ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>();
  const auto rows =
      MakeSftRows(texts, *LoadTinyTokenizer(family), training["max_seq_length"], false);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const auto adapter = model::ReadAdapter(Folder("start"), *model);
  ASSERT_TRUE(adapter.ok()) << adapter.status();

  const auto group = parallel::ProcessGroup::Single();
  TrainedWeights weights(TrainAdapter(*adapter, *model), {.group = group.get()});
  TrainingLayerRunner runner(/*recompute=*/false, weights.hooks());
  model->set_layer_runner(&runner);
  SftRecipe recipe(model.get(), &*rows, false);
  Trainer trainer(OptionsOf(training, static_cast<int64_t>(rows->size())), &recipe, &weights,
                  group.get());
  const auto state = trainer.Run({}, QuietCallbacks());
  ASSERT_TRUE(state.ok()) << state.status();
  const Json& steps = golden["steps"];
  ASSERT_EQ(state->log.size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_NEAR(state->log[i]["loss"].get<double>(), steps[i]["loss"].get<double>(), 1e-3) << i;
    const double norm = steps[i]["grad_norm"];
    EXPECT_NEAR(state->log[i]["grad_norm"].get<double>(), norm, 1e-2 * norm) << i;
  }

  // What is written is what PEFT wrote, and what is read again gives its logits.
  std::map<std::string, at::Tensor> trained;
  const auto collected = weights.Collect([](WeightShard& shard) { return shard.master; });
  ASSERT_TRUE(collected.ok());
  for (const auto& named : *collected) trained[named.name] = named.tensor;
  const TempDir folder;
  ASSERT_TRUE(model::WriteAdapter(folder.path(), adapter->config, "base", family == "gpt2",
                                  StoredAdapter(*model, adapter->config, trained))
                  .ok());
  const model::GoldenTensors want(Folder("end") / "adapter_model.safetensors");
  const auto written = model::Safetensors::OpenFile(folder / "adapter_model.safetensors").value();
  for (const model::NamedTensor& named : StoredAdapter(*model, adapter->config, trained)) {
    ASSERT_NE(written->Find(named.name), nullptr) << named.name;
    // The gradient of a key's bias is 0 but for rounding, on which Adam steps; and PEFT does not
    // save what `lora_only` trains.
    if (named.name.ends_with("c_attn.base_layer.bias")) continue;
    if (adapter->config.bias == model::LoraBias::kLoraOnly && named.name.ends_with(".bias"))
      continue;
    const at::Tensor expected = want.Get(named.name);
    EXPECT_LT((named.tensor.cpu() - expected).abs().max().item<double>(),
              2e-3 * std::max(1.0, expected.abs().max().item<double>()))
        << named.name;
  }
}

// Under autocast: against TRL's there where that is recorded, else against those in float32.
TEST_P(LoraCurveTest, HalvesStayNearPeft) {
  const Json golden = ReadTrainGolden(std::string("lora/") + GetParam() + ".json");
  const std::string family = golden["model"];
  const auto texts = ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>();
  const auto rows =
      MakeSftRows(texts, *LoadTinyTokenizer(family), golden["training"]["max_seq_length"], false);
  ASSERT_TRUE(rows.ok()) << rows.status();
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    SCOPED_TRACE(c10::toString(dtype));
    const auto model = LoadTinyModel(family, {.dtype = dtype, .autocast = true});
    const auto adapter = model::ReadAdapter(Folder("start"), *model);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    const auto group = parallel::ProcessGroup::Single();
    TrainedWeights weights(TrainAdapter(*adapter, *model), {.group = group.get()});
    TrainingLayerRunner runner(/*recompute=*/true, weights.hooks());
    model->set_layer_runner(&runner);
    SftRecipe recipe(model.get(), &*rows, false);
    TrainerOptions options = OptionsOf(golden["training"], static_cast<int64_t>(rows->size()));
    options.scale_loss = dtype == at::kHalf;
    options.first_loss_scale = 1024;  // with 65536 the first steps would overflow and be left out
    Trainer trainer(options, &recipe, &weights, group.get());
    const auto state = trainer.Run({}, QuietCallbacks());
    ASSERT_TRUE(state.ok()) << state.status();
    const std::string same_precision = std::string("lora/") + GetParam() + "_bf16.json";
    const bool is_recorded =
        dtype == at::kBFloat16 && std::filesystem::exists(TrainGolden(same_precision));
    const Json steps = (is_recorded ? ReadTrainGolden(same_precision) : golden)["steps"];
    ASSERT_EQ(state->log.size(), steps.size());
    for (size_t i = 0; i < steps.size(); ++i) {
      const double loss = steps[i]["loss"], norm = steps[i]["grad_norm"];
      EXPECT_NEAR(state->log[i]["loss"].get<double>(), loss, (is_recorded ? 1e-2 : 2e-2) * loss)
          << i;
      if (i < 5) {
        EXPECT_NEAR(state->log[i]["grad_norm"].get<double>(), norm,
                    (is_recorded ? 2e-2 : 0.1) * norm)
            << i;
      }
    }
    for (const WeightShard& shard : weights.shards()) {
      EXPECT_EQ(shard.compute.scalar_type(), at::kFloat);
    }
  }
}

TEST_P(LoraCurveTest, GradientsEqualPyTorchs) {
  const Json golden = ReadTrainGolden(std::string("lora/") + GetParam() + ".json");
  const std::string family = golden["model"];
  const auto want = model::Safetensors::OpenFile(Folder("grads.safetensors")).value();
  auto texts = ReadTrainGolden("sft/texts.json")["texts"].get<std::vector<std::string>>();
  texts.resize(4);
  const auto rows =
      MakeSftRows(texts, *LoadTinyTokenizer(family), golden["training"]["max_seq_length"], false);
  ASSERT_TRUE(rows.ok()) << rows.status();
  for (const bool recompute : {false, true}) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel(family);
    const auto adapter = model::ReadAdapter(Folder("end"), *model);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    const auto group = parallel::ProcessGroup::Single();
    TrainedWeights weights(TrainAdapter(*adapter, *model), {.group = group.get()});
    TrainingLayerRunner runner(recompute, weights.hooks());
    model->set_layer_runner(&runner);
    SftRecipe recipe(model.get(), &*rows, /*is_packed=*/false);
    const auto report = RunPass(recipe, {0, 1, 2, 3}, weights, *group);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_NEAR(report->loss, golden["grads_loss"].get<double>(), 1e-4);

    const auto stored = StoredAdapter(*model, adapter->config, Gradients(weights));
    EXPECT_EQ(stored.size(), want->tensors().size());
    for (const model::NamedTensor& named : stored) {
      ASSERT_NE(want->Find(named.name), nullptr) << named.name;
      const at::Tensor gradient = want->Find(named.name)->Copy();
      ASSERT_EQ(named.tensor.sizes(), gradient.sizes()) << named.name;
      const double scale = std::max(gradient.abs().max().item<double>(), 1e-2);
      EXPECT_LT((named.tensor - gradient).abs().max().item<double>() / scale, 1e-4) << named.name;
    }
  }
}

TEST_P(LoraCurveTest, GivesPeftsLogitsAtRuntimeAndMerged) {
  if (GetParam() == std::string("lora_only")) return;  // PEFT's folder lacks the biases
  const Json golden = ReadTrainGolden(std::string("lora/") + GetParam() + ".json");
  const model::GoldenTensors want(Folder("logits.safetensors"));
  for (const bool merged : {false, true}) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel(golden["model"]);
    const auto adapter = model::ReadAdapter(Folder("end"), *model);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    (merged ? model::Merge : model::Attach)(*adapter, 1.0, *model);
    const at::Tensor logits = LogitsOf(*model, {golden["prompt"].get<Ids>()});
    EXPECT_LE(model::ErrorInTolerances(logits, want.Get(merged ? "merged" : "runtime")), 1.0)
        << merged;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, LoraCurveTest,
                         testing::Values("llama", "gpt2", "all_linear", "lora_only"),
                         [](const auto& info) { return std::string(info.param); });

// Adapters with modules_to_save, and of the head.
class WholeModulesTest : public testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path Folder(const char* which) {
    return TrainGolden(std::string("lora/whole_") + GetParam() + "/" + which);
  }
  const Json golden_ = ReadTrainGolden("lora/whole.json")["cases"][GetParam()];
};

TEST_P(WholeModulesTest, GiveWhatPeftGives) {
  const model::GoldenTensors want(Folder("logits.safetensors"));
  for (const bool merged : {false, true}) {
    const std::unique_ptr<model::Decoder> model = LoadTinyModel(golden_["model"]);
    const auto adapter = model::ReadAdapter(Folder("end"), *model);
    ASSERT_TRUE(adapter.ok()) << adapter.status();
    // Its scale is that of the matrices.
    (merged ? model::Merge : model::Attach)(*adapter, 1.0, *model);
    const at::Tensor logits = LogitsOf(*model, {golden_["prompt"].get<Ids>()});
    EXPECT_LE(model::ErrorInTolerances(logits, want.Get(merged ? "merged" : "runtime")), 1.0)
        << merged;
    EXPECT_THAT(Text(CheckTrainable(*adapter)), HasSubstr("but not trained further"));
  }
}

// A model that the adapter went into is written as one that others load.
TEST_P(WholeModulesTest, AreInTheFolderOfAMergedModel) {
  const std::string family = golden_["model"];
  const std::unique_ptr<model::Decoder> model = LoadTinyModel(family);
  const auto adapter = model::ReadAdapter(Folder("end"), *model);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  model::Merge(*adapter, 1.0, *model);
  const TempDir folder;
  const auto base = model::OpenCheckpoint(model::ModelGolden(family));
  ASSERT_TRUE(base.ok()) << base.status();
  const auto tensors = model::StoredTensors(
      model->parameters(), [](const model::Parameter& parameter) { return *parameter.tensor; });
  ASSERT_TRUE(model::WriteModelFiles(folder.path(), *base, tensors).ok());
  std::vector<std::string> warnings;
  const auto again = model::LoadCausalLm(folder.path(), {.dtype = at::kFloat}, &warnings);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(warnings.empty()) << warnings[0];
  const model::GoldenTensors want(Folder("logits.safetensors"));
  const at::Tensor logits = LogitsOf(**again, {golden_["prompt"].get<Ids>()});
  EXPECT_LE(model::ErrorInTolerances(logits, want.Get("merged")), 1.0);
}

INSTANTIATE_TEST_SUITE_P(Cases, WholeModulesTest,
                         testing::Values("embeddings", "head_of_tied", "head_and_norms",
                                         "adapted_head", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TargetModulesTest, SaysWhatThereIs) {
  const auto gpt2 = LoadTinyModel("gpt2");
  EXPECT_THAT(Text(TargetModules(*gpt2, {"q_proj"}).status()),
              HasSubstr("no module is called q_proj; linear layers are: c_attn, c_proj, c_fc"));
  EXPECT_THAT(Text(TargetModules(*gpt2, {"c_attn", "wte"}).status()),
              HasSubstr("wte is no linear layer"));
  EXPECT_THAT(Text(TargetModules(*gpt2, {"ln_1"}).status()), HasSubstr("ln_1 is no linear layer"));
  EXPECT_THAT(Text(TargetModules(*gpt2, {"c_attn", "lm_head"}).status()),
              HasSubstr("lm_head is the output head"));  // although it is the embeddings here
  EXPECT_THAT(Text(TargetModules(*gpt2, {"c_attn", "transformer.lm_head"}).status()),
              HasSubstr("transformer.lm_head is the output head"));
  for (const char* container : {"mlp", "h.0", "transformer"}) {
    EXPECT_THAT(Text(TargetModules(*gpt2, {"c_attn", container}).status()),
                HasSubstr(std::string(container) + " is no linear layer"));
  }
  for (const char* family : {"llama", "mistral"}) {  // the first has tied embeddings
    const auto model = LoadTinyModel(family);
    EXPECT_THAT(Text(TargetModules(*model, {"q_proj", "lm_head"}).status()),
                HasSubstr("lm_head is the output head"));
    EXPECT_THAT(Text(TargetModules(*model, {"q_proj", "mlp"}).status()),
                HasSubstr("mlp is no linear layer"));
  }
  const auto qwen3 = LoadTinyModel("qwen3");
  EXPECT_EQ(TargetModules(*qwen3, {"all-linear"})->size(),
            7 * static_cast<size_t>(qwen3->info().num_layers));
  // A full path means one module.
  EXPECT_EQ(TargetModules(*qwen3, {"model.layers.0.mlp.down_proj"})->size(), 1u);
}

TEST(MakeAdapterTest, StartsWithNoEffectAndInBounds) {
  const auto model = LoadTinyModel("llama");
  const auto adapter =
      MakeAdapter(*model, {.r = 4, .alpha = 8, .dropout = 0, .target_modules = {"q_proj"}}, 42);
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  for (const auto& [path, low_rank] : adapter->modules) {
    const double bound = 1 / std::sqrt(static_cast<double>(low_rank.a.size(1)));
    const double largest = low_rank.a.abs().max().item<double>();
    EXPECT_LE(largest, bound);
    EXPECT_GT(largest, 0.9 * bound);
    EXPECT_EQ(low_rank.b.abs().max().item<double>(), 0);
    EXPECT_EQ(low_rank.scale, 2.0);
  }
}

// peft.utils.get_pattern_key: regular expressions, the first that matches.
TEST(LoraConfigTest, PatternsMatchAsPefts) {
  model::LoraConfig config = {.r = 8, .alpha = 16};
  config.rank_pattern = {{"layers\\.[01]\\..*q_proj", 4}, {"^model.layers.2.mlp.up_proj", 2}};
  config.alpha_pattern = {{"q_proj", 32}, {"layers.0.self_attn.q_proj", 64}};
  EXPECT_EQ(config.RankOf("model.layers.1.self_attn.q_proj"), 4);
  EXPECT_EQ(config.RankOf("model.layers.2.self_attn.q_proj"), 8);
  EXPECT_EQ(config.RankOf("model.layers.2.mlp.up_proj"), 2);
  EXPECT_EQ(config.RankOf("x.model.layers.2.mlp.up_proj"), 8);
  EXPECT_EQ(config.ScaleOf("model.layers.0.self_attn.q_proj"), 32.0 / 4);
  EXPECT_EQ(config.ScaleOf("model.layers.0.self_attn.my_q_proj"), 16.0 / 4);
}

// Each is an error that names the file and what is wrong in it.
TEST(ReadAdapterTest, BadFolders) {
  const auto model = LoadTinyModel("llama");
  const std::filesystem::path good = TrainGolden("lora/llama/end");
  const auto with = [&](const char* key, const Json& value) {
    const TempDir folder;
    std::filesystem::copy(good, folder.path(), std::filesystem::copy_options::recursive);
    Json config = ParseJson(ReadFile(good / "adapter_config.json").value()).value();
    config[key] = value;
    EXPECT_TRUE(WriteFileAtomically(folder / "adapter_config.json", DumpJson(config)).ok());
    return Text(model::ReadAdapter(folder.path(), *model).status());
  };
  EXPECT_THAT(with("peft_type", "IA3"), HasSubstr("peft_type: expected LORA, got \"IA3\""));
  EXPECT_THAT(with("use_dora", true), HasSubstr("DoRA"));
  EXPECT_THAT(with("modules_to_save", {"lm_head"}),
              HasSubstr("tensor base_model.model.lm_head.weight is missing: it is in "
                        "modules_to_save"));
  EXPECT_THAT(with("modules_to_save", {"norm"}), HasSubstr("input_layernorm.weight is missing"));
  EXPECT_EQ(with("modules_to_save", {"score"}), "");  // PEFT passes over those that are not there
  EXPECT_THAT(with("modules_to_save", "norm"), HasSubstr("expected a list of strings"));
  EXPECT_THAT(with("r", 5), HasSubstr("expected shape [5, "));
  EXPECT_THAT(
      with("alpha_pattern", {{"q_(proj", 2}}),
      HasSubstr("alpha_pattern: expected regular expressions of module paths, got 'q_(proj'"));
  const auto gpt2 = LoadTinyModel("gpt2");
  EXPECT_THAT(Text(model::ReadAdapter(good, *gpt2).status()),
              HasSubstr("the model has no linear layer model.layers.0.self_attn.q_proj"));
  const TempDir empty;
  EXPECT_THAT(Text(model::FindAdapterFolder(empty.path()).status()),
              HasSubstr("no adapter_config.json"));
  EXPECT_EQ(*model::FindAdapterFolder(good.parent_path()), good);
}

}  // namespace
}  // namespace flowmesh::train
