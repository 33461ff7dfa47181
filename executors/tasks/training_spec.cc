#include "executors/tasks/training_spec.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/kernels/few_rows.h"
#include "executors/tasks/unread_keys.h"

namespace flowmesh::tasks {
namespace {

using Warn = std::function<void(const std::string&)>;

// The word of a field that knows some, in lower case; empty when it holds none.
std::string WordOf(const Field& field, const char* fallback) {
  const absl::StatusOr<std::string> given = field.StringOr(fallback);
  return given.ok() ? ToLower(Trim(*given)) : "";
}

absl::StatusOr<train::Schedule::Kind> ReadSchedule(const Field& field) {
  const std::string name = WordOf(field, "linear");
  if (name == "linear") return train::Schedule::Kind::kLinear;
  if (name == "cosine") return train::Schedule::Kind::kCosine;
  if (name == "constant") return train::Schedule::Kind::kConstant;
  if (name == "constant_with_warmup") return train::Schedule::Kind::kConstantWithWarmup;
  return field.Expected("linear, cosine, constant or constant_with_warmup");
}

absl::StatusOr<TrainingSpec::SaveStrategy> ReadSaveStrategy(const Field& field) {
  if (field.json() == Json(false)) return TrainingSpec::SaveStrategy::kNo;  // YAML's plain `no`
  const std::string name = WordOf(field, "steps");
  if (name == "steps") return TrainingSpec::SaveStrategy::kSteps;
  if (name == "epoch") return TrainingSpec::SaveStrategy::kEpoch;
  if (name == "no") return TrainingSpec::SaveStrategy::kNo;
  return field.Expected("steps, epoch or no");
}

// `training.deepspeed`: a map, the path of a JSON file, or `auto`, which is an empty map.
absl::StatusOr<Json> ReadDeepSpeed(const Field& field) {
  if (!field.present()) return Json(nullptr);
  if (field.json().is_object()) return field.json();
  if (!field.json().is_string()) return field.Expected("a map, the path of a JSON file, or auto");
  ASSIGN_OR_RETURN(const std::string text, field.NonEmptyString());
  if (ToLower(text) == "auto") return Json::object();
  const auto content = ReadFile(text);
  if (!content.ok()) return field.Error(Message(content.status()));
  const auto document = ParseJson(*content);
  if (!document.ok()) return field.Error(absl::StrCat(text, ": ", Message(document.status())));
  if (!document->is_object()) return field.Error(absl::StrCat(text, ": expected a map"));
  return *document;
}

// What a DeepSpeed configuration says of things that `training` says too; `auto` says nothing.
class DeepSpeed {
 public:
  DeepSpeed(const Json* document, std::string path) : root_(document, std::move(path)) {}

  bool present() const { return root_.present(); }

  // `own` if the spec has it, else the configuration's.
  Field Else(const Field& own, std::initializer_list<const char*> path) const {
    Field field = root_;
    for (const char* key : path) field = field[key];
    const bool is_auto = field.present() && field.json() == "auto";
    return own.present() || !field.present() || is_auto ? own : field;
  }

  void WarnOfUnread(const Warn& warn) const {
    for (const char* key : {"optimizer", "scheduler"}) {
      if (root_[key].present()) warn(absl::StrCat("ignored field ", root_[key].path()));
    }
    for (const char* key : {"offload_optimizer", "offload_param"}) {
      const Field field = root_["zero_optimization"][key];
      if (field.present()) warn(absl::StrCat("ignored field ", field.path()));
    }
  }

 private:
  const Field root_;
};

absl::StatusOr<int> ReadZeroStage(const Field& training, const DeepSpeed& deepspeed, bool shards) {
  const Field stage = training.FirstOf({"auto_deepspeed_stage", "zero_stage"});
  ASSIGN_OR_RETURN(const bool automatic, training["auto_deepspeed"].BoolOr(true));
  const Field given = deepspeed.Else(Field(nullptr, stage.path()), {"zero_optimization", "stage"});
  if (given.present()) {
    ASSIGN_OR_RETURN(const int64_t value, given.Int(0, 3));
    return static_cast<int>(value);
  }
  if (deepspeed.present()) shards = true;  // `auto`
  if (!stage.present() && !(shards && automatic)) return 0;
  ASSIGN_OR_RETURN(const int64_t value, stage.IntOr(2));
  if (!automatic) return 0;
  return static_cast<int>(std::clamp<int64_t>(value, 1, 3));
}

absl::StatusOr<c10::ScalarType> ReadPrecision(const Field& training, const DeepSpeed& deepspeed,
                                              bool use_cuda, bool bf16_on_gpu, const Warn& warn) {
  const Field bf16 = deepspeed.Else(training["bf16"], {"bf16", "enabled"});
  const Field fp16 = deepspeed.Else(training["fp16"], {"fp16", "enabled"});
  ASSIGN_OR_RETURN(const bool wants_fp16, fp16.BoolOr(false));
  ASSIGN_OR_RETURN(const bool wants_bf16, bf16.BoolOr(bf16_on_gpu && use_cuda && !wants_fp16));
  if (wants_bf16) {
    if (use_cuda || kernels::HasNativeBf16()) return c10::ScalarType::BFloat16;
    warn(absl::StrCat(bf16.path(), ": ignored: this processor has no bfloat16 arithmetic"));
  }
  if (wants_fp16 && !wants_bf16) {
    if (use_cuda) return c10::ScalarType::Half;
    warn(absl::StrCat(fp16.path(), ": ignored on the CPU"));
  }
  return c10::ScalarType::Float;
}

absl::Status ReadModel(const Field& spec, const TrainingDefaults& defaults, TrainingSpec* result) {
  const Field model = spec["model"], source = model["source"];
  RETURN_IF_ERROR(model.CheckMap());
  RETURN_IF_ERROR(source.CheckMap());
  ASSIGN_OR_RETURN(const std::string identifier,
                   source["identifier"].StringOr(defaults.identifier));
  result->identifier = Trim(identifier);
  if (result->identifier.empty()) result->identifier = defaults.identifier;
  ASSIGN_OR_RETURN(const std::string revision, source["revision"].StringOr("main"));
  result->revision = Trim(revision).empty() ? "main" : std::string(Trim(revision));
  const Field own = model["transformers"]["download_dir"];
  ASSIGN_OR_RETURN(result->download_dir,
                   (own.present() ? own : model["vllm"]["download_dir"]).StringOr(""));
  return absl::OkStatus();
}

absl::Status ReadOptimizer(const Field& training, const TrainingDefaults& defaults,
                           train::TrainerOptions* options) {
  ASSIGN_OR_RETURN(options->schedule.learning_rate,
                   training["learning_rate"].NumberOr(defaults.learning_rate, {.above = 0}));
  ASSIGN_OR_RETURN(options->schedule.kind, ReadSchedule(training["lr_scheduler_type"]));
  ASSIGN_OR_RETURN(options->schedule.warmup_steps, training["warmup_steps"].IntOr(0, 0));
  ASSIGN_OR_RETURN(options->schedule.warmup_ratio,
                   training["warmup_ratio"].NumberOr(0, {.at_least = 0, .at_most = 1}));
  train::AdamWOptions& adam = options->optimizer;
  ASSIGN_OR_RETURN(adam.weight_decay, training["weight_decay"].NumberOr(0, {.at_least = 0}));
  ASSIGN_OR_RETURN(adam.max_grad_norm,
                   training["max_grad_norm"].NumberOr(defaults.max_grad_norm, {.at_least = 0}));
  ASSIGN_OR_RETURN(adam.beta1, training["adam_beta1"].NumberOr(0.9, {.at_least = 0, .below = 1}));
  ASSIGN_OR_RETURN(adam.beta2, training["adam_beta2"].NumberOr(0.999, {.at_least = 0, .below = 1}));
  ASSIGN_OR_RETURN(adam.epsilon, training["adam_epsilon"].NumberOr(1e-8, {.above = 0}));
  return absl::OkStatus();
}

// DeepSpeed's train_batch_size is batch size times accumulation times ranks: what of these is given
// nowhere follows from it.
absl::Status FillFromTotal(const Field& total, bool has_batch_size, bool has_accumulation,
                           int64_t ranks, train::BatchOptions* batches) {
  ASSIGN_OR_RETURN(const int64_t rows, total.Int(1));
  if (has_batch_size && has_accumulation) return absl::OkStatus();
  const int64_t known = ranks * (has_batch_size     ? batches->batch_size
                                 : has_accumulation ? batches->accumulation
                                                    : 1);
  if (rows % known != 0) {
    return total.Expected(absl::StrCat("a multiple of ", known, ", the ranks times the ",
                                       has_batch_size ? "batch size" : "accumulated passes"));
  }
  (has_batch_size ? batches->accumulation : batches->batch_size) = rows / known;
  return absl::OkStatus();
}

absl::Status ReadLoop(const Field& training, const DeepSpeed& deepspeed,
                      const TrainingDefaults& defaults, int64_t ranks, TrainingSpec* result) {
  train::BatchOptions& batches = result->trainer.batches;
  ASSIGN_OR_RETURN(batches.epochs, training["num_train_epochs"].NumberOr(1.0, {.above = 0}));
  const Field own_batch_size =
      defaults.per_device_first
          ? training.FirstOf({"per_device_train_batch_size", "batch_size", "per_device_batch_size"})
          : training.FirstOf(
                {"batch_size", "per_device_train_batch_size", "per_device_batch_size"});
  const Field batch_size = deepspeed.Else(own_batch_size, {"train_micro_batch_size_per_gpu"});
  ASSIGN_OR_RETURN(batches.batch_size, batch_size.IntOr(defaults.batch_size, 1));
  const Field accumulation =
      deepspeed.Else(training["gradient_accumulation_steps"], {"gradient_accumulation_steps"});
  ASSIGN_OR_RETURN(batches.accumulation, accumulation.IntOr(1, 1));
  const Field total = deepspeed.Else(Field(nullptr, ""), {"train_batch_size"});
  if (total.present()) {
    RETURN_IF_ERROR(
        FillFromTotal(total, batch_size.present(), accumulation.present(), ranks, &batches));
  }
  // -1 is HF Trainer's word for no limit.
  ASSIGN_OR_RETURN(const int64_t max_steps, training["max_steps"].IntOr(-1, -1));
  if (max_steps > 0) batches.max_steps = max_steps;
  ASSIGN_OR_RETURN(const int64_t seed, training["seed"].IntOr(42, 0));
  result->seed = batches.seed = static_cast<uint64_t>(seed);
  ASSIGN_OR_RETURN(result->trainer.logging_steps, training["logging_steps"].IntOr(10, 1));
  return absl::OkStatus();
}

absl::Status ReadSaving(const Field& training, const TrainingDefaults& defaults,
                        TrainingSpec* result) {
  ASSIGN_OR_RETURN(result->save_strategy, ReadSaveStrategy(training["save_strategy"]));
  const Field steps = defaults.save_freq_first ? training.FirstOf({"save_freq", "save_steps"})
                                               : training.FirstOf({"save_steps", "save_freq"});
  ASSIGN_OR_RETURN(result->save_steps, steps.IntOr(defaults.save_steps, 1));
  ASSIGN_OR_RETURN(result->save_total_limit, training["save_total_limit"].IntOr(0, 0));
  ASSIGN_OR_RETURN(result->save_model, training["save_model"].BoolOr(true));
  ASSIGN_OR_RETURN(const std::string resume, training["resume_from_path"].StringOr(""));
  result->resume_from_path = Trim(resume);
  std::error_code error;
  if (!result->resume_from_path.empty() &&
      !std::filesystem::exists(result->resume_from_path, error)) {
    return training["resume_from_path"].Error(
        absl::StrCat("there is no ", result->resume_from_path));
  }
  return absl::OkStatus();
}

// What training begins with instead of the model's own weights.
absl::Status ReadStart(const Field& spec, const Warn& warn, TrainingSpec* result) {
  ASSIGN_OR_RETURN(result->load, ReadCheckpointLoad(spec));
  if (result->resume_from_path.empty()) return absl::OkStatus();
  const std::string field = spec["training"]["resume_from_path"].path();
  if (result->load) {
    warn(absl::StrCat("ignored field ", field, ": ", result->load->field, " is given"));
  } else {
    result->load = LoadSource{.field = field, .path = {field, result->resume_from_path}};
  }
  return absl::OkStatus();
}

// What this file and the launcher (rank_plan.h) read.
constexpr std::string_view kTrainingKeys[] = {"adam_beta1",
                                              "adam_beta2",
                                              "adam_epsilon",
                                              "allow_multi_gpu",
                                              "auto_deepspeed",
                                              "auto_deepspeed_stage",
                                              "batch_size",
                                              "bf16",
                                              "deepspeed",
                                              "fp16",
                                              "gradient_accumulation_steps",
                                              "gradient_checkpointing",
                                              "learning_rate",
                                              "logging_steps",
                                              "lr_scheduler_type",
                                              "max_grad_norm",
                                              "max_restarts",
                                              "max_steps",
                                              "nproc_per_node",
                                              "num_train_epochs",
                                              "per_device_batch_size",
                                              "per_device_train_batch_size",
                                              "primary_gpu",
                                              "resume_from_path",
                                              "save_freq",
                                              "save_model",
                                              "save_steps",
                                              "save_strategy",
                                              "save_total_limit",
                                              "seed",
                                              "visible_devices",
                                              "warmup_ratio",
                                              "warmup_steps",
                                              "weight_decay",
                                              "zero_stage"};

void WarnOfUnreadKeys(const Field& spec, const TrainingDefaults& defaults, const Warn& warn) {
  std::vector<std::string> read(std::begin(kTrainingKeys), std::end(kTrainingKeys));
  for (std::string& key : SplitTrimmed(defaults.own_keys, ' ')) read.push_back(std::move(key));
  WarnOfUnread(spec["training"], read, warn);
}

}  // namespace

const char* TrainingSpec::precision() const {
  if (compute == c10::ScalarType::BFloat16) return "bf16";
  return compute == c10::ScalarType::Half ? "fp16" : "fp32";
}

absl::StatusOr<TrainingSpec> ReadTrainingSpec(const Field& spec, const TrainingDefaults& defaults,
                                              bool use_cuda, int ranks, const Warn& warn) {
  const Field training = spec["training"];
  RETURN_IF_ERROR(training.CheckMap());
  WarnOfUnreadKeys(spec, defaults, warn);
  ASSIGN_OR_RETURN(const Json document, ReadDeepSpeed(training["deepspeed"]));
  const DeepSpeed deepspeed(document.is_null() ? nullptr : &document, training["deepspeed"].path());
  deepspeed.WarnOfUnread(warn);

  TrainingSpec result;
  RETURN_IF_ERROR(ReadModel(spec, defaults, &result));
  RETURN_IF_ERROR(ReadLoop(training, deepspeed, defaults, ranks, &result));
  RETURN_IF_ERROR(ReadOptimizer(training, defaults, &result.trainer));
  RETURN_IF_ERROR(ReadSaving(training, defaults, &result));
  RETURN_IF_ERROR(ReadStart(spec, warn, &result));
  ASSIGN_OR_RETURN(result.recompute, training["gradient_checkpointing"].BoolOr(defaults.recompute));
  ASSIGN_OR_RETURN(result.zero_stage, ReadZeroStage(training, deepspeed, defaults.shards));
  ASSIGN_OR_RETURN(result.compute,
                   ReadPrecision(training, deepspeed, use_cuda, defaults.bf16_on_gpu, warn));
  result.trainer.tokens_metric = defaults.tokens_metric;
  result.autocast = result.compute == c10::ScalarType::Half ||
                    (result.compute == c10::ScalarType::BFloat16 && !defaults.bf16_weights);
  result.trainer.scale_loss = result.compute == c10::ScalarType::Half;
  return result;
}

}  // namespace flowmesh::tasks
