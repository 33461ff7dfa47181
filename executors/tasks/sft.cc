// Task type `sft`: supervised fine-tuning of all weights (TASKS.md 3.4).
#include "executors/train/sft.h"

#include "absl/strings/str_cat.h"
#include "executors/data/training_data.h"
#include "executors/model/model_folder.h"
#include "executors/tasks/sft_rows.h"
#include "executors/tasks/training.h"
#include "executors/train/model_weights.h"

namespace flowmesh::tasks {
namespace {

constexpr TrainingDefaults kDefaults = {
    .shards = true, .bf16_weights = true, .tokens_metric = "num_tokens", .own_keys = kSftKeys};

absl::Status Sft(const Field& spec, TrainingJob& job) {
  ASSIGN_OR_RETURN(const data::SftData data, data::ReadSftData(spec));
  ASSIGN_OR_RETURN(const SftRowOptions row_options, ReadSftRowOptions(spec));
  RETURN_IF_ERROR(job.Join());
  RETURN_IF_ERROR(job.Open());
  ASSIGN_OR_RETURN(const std::vector<train::SftRow> rows, LoadSftRows(data, row_options, job));

  const at::ScalarType compute = job.spec().compute;
  ASSIGN_OR_RETURN(const auto model, job.LoadModel(WeightsFor::kTraining));
  train::TrainedWeights weights(train::AllWeights(*model), {.compute = compute,
                                                            .autocast = job.spec().autocast,
                                                            .zero_stage = job.zero_stage(),
                                                            .group = &job.group()});
  train::TrainingLayerRunner layers(job.spec().recompute, weights.hooks());
  model->set_layer_runner(&layers);
  model->set_dropout(true);
  train::SftRecipe recipe(model.get(), &rows, row_options.packing);
  RETURN_IF_ERROR(
      job.Train(recipe, SizeOf(rows), *model, weights, FullModelFiles(job, *model, compute)));
  return job.Save(weights, "final_model", OutputFile::Kind::kFinalModel, "final_model_path");
}

}  // namespace

absl::StatusOr<TaskOutcome> RunSft(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env) {
  return RunTrainingTask(context, kDefaults, device, env, Sft);
}

}  // namespace flowmesh::tasks
