// Task type `dpo`: direct preference optimisation (TASKS.md 3.6, 4.6).
#include "executors/train/dpo.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/training_data.h"
#include "executors/tasks/training.h"
#include "executors/train/model_weights.h"

namespace flowmesh::tasks {
namespace {

constexpr TrainingDefaults kDefaults = {
    .identifier = "microsoft/DialoGPT-small",
    .learning_rate = 5e-7,
    .batch_size = 4,
    .save_steps = 500,
    .save_freq_first = true,
    .bf16_on_gpu = true,
    .own_keys = "beta label_smoothing loss_type max_length max_prompt_length"};

struct DpoSpec {
  train::DpoOptions options;
  train::DpoLimits limits;
};

absl::StatusOr<DpoSpec> ReadDpo(const Field& training) {
  DpoSpec spec;
  ASSIGN_OR_RETURN(spec.options.beta, training["beta"].NumberOr(0.1, {.above = 0}));
  ASSIGN_OR_RETURN(spec.options.label_smoothing,
                   training["label_smoothing"].NumberOr(0, {.at_least = 0, .below = 0.5}));
  ASSIGN_OR_RETURN(spec.limits.max_prompt_length, training["max_prompt_length"].IntOr(512, 1));
  ASSIGN_OR_RETURN(spec.limits.max_length, training["max_length"].IntOr(1024, 2));
  const absl::StatusOr<std::string> loss = training["loss_type"].StringOr("sigmoid");
  if (!loss.ok() || ToLower(Trim(*loss)) != "sigmoid")
    return training["loss_type"].Expected("sigmoid");
  return spec;
}

absl::StatusOr<std::vector<train::PreferencePair>> LoadPairs(const data::PreferenceData& data,
                                                             const train::DpoLimits& limits,
                                                             TrainingJob& job) {
  std::vector<data::Preference> preferences;
  RETURN_IF_ERROR(job.InTurn([&]() -> absl::Status {
    ASSIGN_OR_RETURN(preferences, data::LoadPreferenceData(data, job.data_context()));
    return absl::OkStatus();
  }));
  job.set_dataset_size(static_cast<int64_t>(preferences.size()));
  if (data.is_demo()) job.set_demo_data();
  const text::Tokenizer& tokenizer = job.tokenizer();
  if (!tokenizer.eos_id()) {
    return absl::FailedPreconditionError("the tokenizer has no EOS token, which training needs");
  }
  train::DpoLimits lowered = limits;
  if (const int64_t most = job.base().config.max_positions; limits.max_length > most) {
    job.Warn(absl::StrCat("spec.training.max_length: ", limits.max_length, " lowered to ", most,
                          ", the model's limit"));
    lowered.max_length = most;
  }
  std::vector<train::PreferencePair> pairs;
  for (const data::Preference& p : preferences) {
    pairs.push_back(
        train::MakePair(p.prompt, p.chosen, p.rejected, tokenizer, *tokenizer.eos_id(), lowered));
  }
  return pairs;
}

DataSize SizeOf(const std::vector<train::PreferencePair>& pairs) {
  DataSize size = {.rows = static_cast<int64_t>(pairs.size())};
  for (const train::PreferencePair& pair : pairs) {
    size.tokens += static_cast<int64_t>(pair.chosen.ids.size() + pair.rejected.ids.size());
  }
  return size;
}

absl::Status Dpo(const Field& spec, TrainingJob& job) {
  ASSIGN_OR_RETURN(const data::PreferenceData data, data::ReadPreferenceData(spec));
  ASSIGN_OR_RETURN(const DpoSpec dpo, ReadDpo(spec["training"]));
  RETURN_IF_ERROR(job.Join());
  RETURN_IF_ERROR(job.Open());
  ASSIGN_OR_RETURN(const auto pairs, LoadPairs(data, dpo.limits, job));

  const at::ScalarType compute = job.spec().compute;
  ASSIGN_OR_RETURN(const auto model, job.LoadModel(WeightsFor::kTraining));
  train::TrainedWeights weights(
      train::AllWeights(*model),
      {.compute = compute, .zero_stage = job.zero_stage(), .group = &job.group()});
  train::TrainingLayerRunner layers(job.spec().recompute, weights.hooks());
  model->set_layer_runner(&layers);
  train::DpoRecipe recipe(model.get(), &pairs, dpo.options);
  RETURN_IF_ERROR(recipe.Prepare(job.spec().trainer.batches.batch_size, weights, job.group(),
                                 [&](int64_t done, int64_t total) -> absl::Status {
                                   if (job.context().is_stopped())
                                     return absl::CancelledError("stopped");
                                   if (job.is_first()) {
                                     job.context().on_progress(
                                         {.stage = "scoring by the reference",
                                          .done = static_cast<uint64_t>(done),
                                          .total = static_cast<uint64_t>(total),
                                          .unit = "pairs"});
                                   }
                                   return absl::OkStatus();
                                 }));
  RETURN_IF_ERROR(
      job.Train(recipe, SizeOf(pairs), *model, weights, FullModelFiles(job, *model, at::kFloat)));
  return job.Save(weights, "checkpoints/final_model", OutputFile::Kind::kFinalModel,
                  "final_model_path");
}

}  // namespace

absl::StatusOr<TaskOutcome> RunDpo(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env) {
  return RunTrainingTask(context, kDefaults, device, env, Dpo);
}

}  // namespace flowmesh::tasks
