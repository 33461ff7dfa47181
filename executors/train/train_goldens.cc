#include "executors/train/train_goldens.h"

#include <cstdlib>

#include "common/files.h"
#include "executors/device/test_device.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::train {
namespace {

std::filesystem::path Goldens() {
  return std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "tests/goldens";
}

}  // namespace

std::filesystem::path TrainGolden(std::string_view name) { return Goldens() / "train" / name; }

Json ReadTrainGolden(std::string_view name) {
  return ParseJson(ReadFile(TrainGolden(name)).value()).value();
}

std::unique_ptr<model::Decoder> LoadTinyModel(const std::string& family, at::ScalarType dtype,
                                              bool autocast) {
  return LoadTinyModel(family, {.dtype = dtype, .master_weights = true, .autocast = autocast});
}

std::unique_ptr<model::Decoder> LoadTinyModel(const std::string& family,
                                              model::LoadOptions options) {
  const auto checkpoint = model::OpenCheckpoint(Goldens() / "models" / family).value();
  std::vector<std::string> warnings;
  options.device = device::TestDevice();
  return model::LoadDecoder(checkpoint, options, &warnings).value();
}

std::unique_ptr<text::Tokenizer> LoadTinyTokenizer(const std::string& family) {
  return text::LoadTokenizerFromFolder(Goldens() / "models" / family).value();
}

absl::StatusOr<PassReport> RunPass(Recipe& recipe, const std::vector<int64_t>& rows,
                                   TrainedWeights& weights, parallel::ProcessGroup& group) {
  RETURN_IF_ERROR(recipe.BeginStep({.batches = {rows}}, group));
  weights.BeginStep();
  RETURN_IF_ERROR(weights.BeginPass(/*is_last=*/true));
  ASSIGN_OR_RETURN(PassReport report, recipe.Pass(rows, /*loss_scale=*/1.0));
  RETURN_IF_ERROR(weights.EndPass());
  return report;
}

std::map<std::string, at::Tensor> Gradients(TrainedWeights& weights) {
  std::map<std::string, at::Tensor> gradients;
  const auto collected = weights.Collect([](WeightShard& shard) { return shard.gradient; });
  if (!collected.ok()) return {};
  for (const TrainedWeights::Named& named : *collected) gradients[named.name] = named.tensor;
  return gradients;
}

TrainerOptions OptionsOf(const Json& training, int64_t rows) {
  TrainerOptions options;
  options.batches = {.rows = rows,
                     .batch_size = training.value("batch_size", int64_t{2}),
                     .accumulation = training.value("gradient_accumulation_steps", int64_t{1}),
                     .epochs = training.value("num_train_epochs", 1.0)};
  if (training.contains("max_steps")) {
    options.batches.max_steps = training["max_steps"].get<int64_t>();
  }
  options.schedule.learning_rate = training["learning_rate"];
  options.schedule.warmup_steps = training.value("warmup_steps", int64_t{0});
  if (training.value("lr_scheduler_type", "linear") == std::string("cosine")) {
    options.schedule.kind = Schedule::Kind::kCosine;
  }
  options.optimizer.weight_decay = training.value("weight_decay", 0.0);
  options.optimizer.max_grad_norm = training.value("max_grad_norm", 1.0);
  options.logging_steps = 1;
  options.tokens_metric = "num_tokens";
  return options;
}

TrainerCallbacks QuietCallbacks() {
  return {.is_stopped = [] { return false; },
          .on_line = [](const Json&) { return absl::OkStatus(); },
          .on_step = [](const TrainerState&, int64_t, double) {},
          .wants_checkpoint = [](const TrainerState&, int64_t) { return false; },
          .save_checkpoint = [](const TrainerState&) { return absl::OkStatus(); }};
}

}  // namespace flowmesh::train
