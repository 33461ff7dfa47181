// Task type `lora_sft`: supervised fine-tuning of low-rank adapters (TASKS.md 3.5, 4.5).
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/training_data.h"
#include "executors/model/model_folder.h"
#include "executors/tasks/sft_rows.h"
#include "executors/tasks/training.h"
#include "executors/tasks/unread_keys.h"
#include "executors/train/lora.h"

namespace flowmesh::tasks {
namespace {

constexpr TrainingDefaults kDefaults = {
    .learning_rate = 2e-4, .recompute = false, .tokens_metric = "num_tokens", .own_keys = kSftKeys};
const std::vector<std::string> kTargets = {"q_proj", "k_proj", "v_proj", "o_proj"};

absl::StatusOr<model::LoraConfig> ReadLora(const Field& lora) {
  RETURN_IF_ERROR(lora.CheckMap());
  model::LoraConfig config;
  ASSIGN_OR_RETURN(config.r, lora["r"].IntOr(16, 1));
  ASSIGN_OR_RETURN(config.alpha, lora.FirstOf({"alpha", "lora_alpha"}).NumberOr(32));
  ASSIGN_OR_RETURN(
      config.dropout,
      lora.FirstOf({"dropout", "lora_dropout"}).NumberOr(0.05, {.at_least = 0, .below = 1}));
  const absl::StatusOr<std::string> bias = lora["bias"].StringOr("none");
  if (bias.ok() && *bias == "all") {
    config.bias = model::LoraBias::kAll;
  } else if (bias.ok() && *bias == "lora_only") {
    config.bias = model::LoraBias::kLoraOnly;
  } else if (!bias.ok() || *bias != "none") {
    return lora["bias"].Expected("none, all or lora_only");
  }
  const Field targets = lora["target_modules"];
  config.target_modules = kTargets;
  if (targets.present() && targets.json().is_string()) {
    if (Trim(targets.json().get<std::string>()) != "all-linear") {
      return targets.Expected("a list of module names, or all-linear");
    }
    config.target_modules = {"all-linear"};
  } else if (targets.present()) {
    if (!targets.json().is_array()) {
      return targets.Expected("a list of module names, or all-linear");
    }
    ASSIGN_OR_RETURN(config.target_modules, targets.StringList());
    if (targets.size() == 0)
      return targets.Error("expected at least one module name, got an empty list");
  }
  const absl::StatusOr<std::string> type = lora["task_type"].StringOr("CAUSAL_LM");
  if (!type.ok() || ToLower(Trim(*type)) != "causal_lm")
    return lora["task_type"].Expected("CAUSAL_LM");
  ASSIGN_OR_RETURN(config.use_rslora, lora["use_rslora"].BoolOr(false));
  return config;
}

// The adapter that training begins with: a trained one, which stands for spec.lora too, or a fresh
// one.
absl::StatusOr<model::Adapter> StartAdapter(const TrainingJob& job, const model::LoraConfig& config,
                                            const model::Decoder& model) {
  if (const auto folder = job.start_adapter()) {
    auto adapter = model::ReadAdapter(*folder, model);
    if (!adapter.ok()) return Annotate(adapter.status(), job.spec().load->field);
    const absl::Status trainable = train::CheckTrainable(*adapter);
    if (!trainable.ok()) return Annotate(trainable, job.spec().load->field);
    return adapter;
  }
  auto adapter = train::MakeAdapter(model, config, job.spec().seed);
  if (!adapter.ok()) return Annotate(adapter.status(), "spec.lora.target_modules");
  return adapter;
}

absl::Status LoraSft(const Field& spec, TrainingJob& job) {
  ASSIGN_OR_RETURN(const data::SftData data, data::ReadSftData(spec));
  ASSIGN_OR_RETURN(const SftRowOptions row_options, ReadSftRowOptions(spec));
  ASSIGN_OR_RETURN(const model::LoraConfig config, ReadLora(spec["lora"]));
  RETURN_IF_ERROR(job.Join());
  WarnOfUnread(spec["lora"],
               {"r", "alpha", "lora_alpha", "dropout", "lora_dropout", "bias", "target_modules",
                "task_type", "use_rslora"},
               [&](const std::string& text) { job.Warn(text); });
  RETURN_IF_ERROR(job.Open(/*continues_adapter=*/true));
  ASSIGN_OR_RETURN(const std::vector<train::SftRow> rows, LoadSftRows(data, row_options, job));

  ASSIGN_OR_RETURN(const auto model, job.LoadModel(WeightsFor::kUse));
  ASSIGN_OR_RETURN(const model::Adapter adapter, StartAdapter(job, config, *model));
  train::TrainedWeights weights(train::TrainAdapter(adapter, *model),
                                {.zero_stage = job.zero_stage(), .group = &job.group()});
  train::TrainingLayerRunner layers(job.spec().recompute, weights.hooks());
  model->set_layer_runner(&layers);
  model->set_dropout(true);
  train::SftRecipe recipe(model.get(), &rows, row_options.packing);
  const auto write_files = [&](const std::filesystem::path& folder,
                               const TrainingJob::Trained& trained) {
    RETURN_IF_ERROR(model::WriteTokenizerFiles(job.base(), folder));
    return model::WriteAdapter(folder, adapter.config, job.spec().identifier,
                               model->config().family == model::Family::kGpt2,
                               train::StoredAdapter(*model, adapter.config, trained));
  };
  RETURN_IF_ERROR(job.Train(recipe, SizeOf(rows), *model, weights, write_files));
  return job.Save(weights, "final_lora", OutputFile::Kind::kFinalLora, "final_lora_path");
}

}  // namespace

absl::StatusOr<TaskOutcome> RunLoraSft(const TaskContext& context, const TrainingDevice& device,
                                       const EnvLookup& env) {
  return RunTrainingTask(context, kDefaults, device, env, LoraSft);
}

}  // namespace flowmesh::tasks
