#include "executors/tasks/training.h"

#include <ATen/Context.h>

#include <algorithm>
#include <mutex>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/field.h"
#include "common/files.h"
#include "executors/device/allocator.h"
#include "executors/model/adapter.h"
#include "executors/model/model_folder.h"
#include "executors/tasks/data_context.h"
#include "executors/train/state.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;

constexpr char kCheckpointPrefix[] = "checkpoint-";
constexpr char kMetricsFile[] = "artifacts/metrics.jsonl";

bool WantsCheckpoint(const TrainingSpec& spec, const train::TrainerState& state, int64_t total,
                     int64_t* last_epoch) {
  switch (spec.save_strategy) {
    case TrainingSpec::SaveStrategy::kSteps:
      return state.step % spec.save_steps == 0 || state.step == total;
    case TrainingSpec::SaveStrategy::kEpoch: {
      const auto epoch = static_cast<int64_t>(state.epoch + 1e-9);
      const bool is_new = epoch > *last_epoch || state.step == total;
      *last_epoch = epoch;
      return is_new;
    }
    case TrainingSpec::SaveStrategy::kNo:
      break;
  }
  return false;
}

}  // namespace

TrainingJob::TrainingJob(const TaskContext& context, TrainingSpec spec,
                         const TrainingDevice& device, EnvLookup env)
    : context_(context),
      spec_(std::move(spec)),
      device_(device),
      env_(std::move(env)),
      begin_(MonotonicSeconds()) {}

TrainingJob::~TrainingJob() = default;

void TrainingJob::Log(const std::string& text) const {
  if (is_first()) context_.on_log(LogLevel::kInfo, text);
}

void TrainingJob::Warn(const std::string& text) const {
  if (is_first()) context_.on_log(LogLevel::kWarning, text);
}

void TrainingJob::ReportStep(const std::string& stage, const train::TrainerState& state,
                             int64_t total, double tokens_per_second) const {
  context_.on_progress({.stage = stage,
                        .done = static_cast<uint64_t>(state.step),
                        .total = static_cast<uint64_t>(total),
                        .unit = "steps",
                        .tokens_per_second = tokens_per_second,
                        .loss = state.last_loss});
}

absl::Status TrainingJob::Join() {
  ASSIGN_OR_RETURN(const parallel::GroupOptions options,
                   parallel::ProcessGroup::OptionsFromEnvironment(device_.use_cuda));
  ASSIGN_OR_RETURN(group_, parallel::ProcessGroup::Join(options));
  at::Generator generator = at::globalContext().defaultGenerator(device_.device());
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(spec_.seed + static_cast<uint64_t>(group_->rank()));
  return absl::OkStatus();
}

absl::Status TrainingJob::InTurn(const std::function<absl::Status()>& load) {
  if (!is_first()) RETURN_IF_ERROR(group_->WaitForFirst(context_.is_stopped));
  RETURN_IF_ERROR(load());
  return is_first() ? group_->WaitForFirst(context_.is_stopped) : absl::OkStatus();
}

data::DataContext TrainingJob::data_context() const {
  data::DataContext context = DataContextOf(context_, env_);
  context.may_reuse = !is_first();
  return context;
}

absl::Status TrainingJob::Open(bool continues_adapter) {
  continues_adapter_ = continues_adapter;
  return InTurn([&]() -> absl::Status {
    FetchOptions options = CheckpointOptions(context_, /*adapter_first=*/continues_adapter);
    options.may_reuse = !is_first();
    ASSIGN_OR_RETURN(files_, FindModel({spec_.identifier, spec_.revision, spec_.download_dir},
                                       spec_.load, options, context_, env_));
    ASSIGN_OR_RETURN(base_, OpenModelFiles(files_));
    auto tokenizer = model::LoadTokenizer(base_);
    if (!tokenizer.ok()) return Annotate(tokenizer.status(), files_.field());
    tokenizer_ = *std::move(tokenizer);
    if (!files_.overlay.empty()) {
      Log(absl::StrCat(files_.overlay_field, ": beginning with ", files_.overlay.string()));
    }
    return absl::OkStatus();
  });
}

std::optional<fs::path> TrainingJob::start_adapter() const {
  return continues_adapter_ ? files_.adapter() : std::nullopt;
}

absl::StatusOr<std::unique_ptr<model::Decoder>> TrainingJob::LoadModel(WeightsFor purpose) {
  std::vector<std::string> warnings;
  const double begin = MonotonicSeconds();
  ASSIGN_OR_RETURN(std::unique_ptr<model::Decoder> model,
                   model::LoadDecoder(base_,
                                      {.dtype = spec_.compute,
                                       .device = device_.device(),
                                       .master_weights = purpose == WeightsFor::kTraining,
                                       .autocast = spec_.autocast,
                                       .progress =
                                           [&](uint64_t done, uint64_t total) {
                                             if (!is_first()) return;
                                             context_.on_progress({.stage = "loading model",
                                                                   .done = done,
                                                                   .total = total,
                                                                   .unit = "bytes"});
                                           }},
                                      &warnings));
  for (const std::string& warning : warnings) Warn(warning);
  if (const auto folder = files_.adapter(); folder && !continues_adapter_) {
    const auto adapter = model::ReadAdapter(*folder, *model);
    if (!adapter.ok()) return Annotate(adapter.status(), files_.overlay_field);
    model::Merge(*adapter, 1.0, *model);
  }
  Log(absl::StrFormat("loaded model %s in %.2f s: path %s, revision %s, device %s, %d parameters",
                      spec_.identifier, MonotonicSeconds() - begin, base_.path.string(),
                      spec_.revision, device_.device().str(), model->info().num_parameters));
  return model;
}

fs::path TrainingJob::MetricsPath() const { return context_.task_dir / kMetricsFile; }

absl::StatusOr<TrainingJob::Trained> TrainingJob::CollectTrained(train::TrainedWeights& weights) {
  ASSIGN_OR_RETURN(auto named, weights.Collect([](train::WeightShard& s) { return s.master; }));
  Trained trained;
  for (train::TrainedWeights::Named& one : named) trained[one.name] = std::move(one.tensor);
  return trained;
}

std::vector<TrainingJob::CheckpointFolder> TrainingJob::Checkpoints() const {
  const auto is_begun_with = [&](const fs::path& folder) {
    std::error_code ignored;
    for (const fs::path& used : {files_.overlay, base_.path}) {
      if (fs::equivalent(folder, used, ignored) ||
          fs::equivalent(folder, used.parent_path(), ignored))
        return true;
    }
    return false;
  };
  std::vector<CheckpointFolder> found;
  std::error_code error;
  for (fs::directory_iterator it(CheckpointsDir(), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename();
    int64_t step = 0;
    if (name.starts_with(kCheckpointPrefix) &&
        absl::SimpleAtoi(name.substr(sizeof(kCheckpointPrefix) - 1), &step) &&
        !is_begun_with(it->path())) {
      found.push_back({step, it->path()});
    }
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step < b.step; });
  return found;
}

absl::Status TrainingJob::Remove(const std::vector<CheckpointFolder>& checkpoints) {
  for (const CheckpointFolder& checkpoint : checkpoints) {
    std::error_code error;
    fs::remove_all(checkpoint.path, error);
    if (error) {
      return absl::InternalError(
          absl::StrCat("cannot remove ", checkpoint.path.string(), ": ", error.message()));
    }
  }
  return absl::OkStatus();
}

absl::Status TrainingJob::CheckSameOnAllRanks(int64_t last_checkpoint) const {
  std::vector<double> last(static_cast<size_t>(group_->world_size()));
  last[static_cast<size_t>(group_->rank())] = static_cast<double>(last_checkpoint);
  RETURN_IF_ERROR(group_->SumNumbers(last));
  const auto differs =
      std::find_if(last.begin(), last.end(), [&](double step) { return step != last[0]; });
  if (differs == last.end()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "the last checkpoint of rank %d is that of step %d, and that of rank 0 of step %d: "
      "checkpoints must be on storage that all ranks see",
      differs - last.begin(), static_cast<int64_t>(*differs), static_cast<int64_t>(last[0])));
}

// A restarted group goes on from its last checkpoint. A first one begins, and what an earlier
// attempt at the task has left must not be taken for its own.
absl::StatusOr<train::TrainerState> TrainingJob::StartState(train::TrainingLoop& loop,
                                                            train::TrainedWeights& weights) {
  int restarts = 0;
  if (!absl::SimpleAtoi(env_("TORCHELASTIC_RESTART_COUNT").value_or("0"), &restarts)) restarts = 0;
  const std::vector<CheckpointFolder> checkpoints = Checkpoints();
  if (restarts > 0) {
    RETURN_IF_ERROR(CheckSameOnAllRanks(checkpoints.empty() ? 0 : checkpoints.back().step));
  }
  train::TrainerState state;
  if (restarts > 0 && !checkpoints.empty()) {
    ASSIGN_OR_RETURN(state,
                     train::ReadState(checkpoints.back().path, loop.optimizer(), weights, *group_));
    Log(absl::StrCat("restart ", restarts, ": going on after step ", state.step));
  }
  if (!is_first()) return state;
  if (restarts == 0) RETURN_IF_ERROR(Remove(checkpoints));
  std::string lines;
  for (const Json& line : state.log) absl::StrAppend(&lines, DumpJson(line), "\n");
  RETURN_IF_ERROR(MakeDirectories(MetricsPath().parent_path()));
  RETURN_IF_ERROR(WriteFileAtomically(MetricsPath(), lines));
  return state;
}

absl::Status TrainingJob::SaveCheckpoint(const train::TrainerState& state,
                                         train::TrainingLoop& loop,
                                         train::TrainedWeights& weights) {
  const fs::path folder = CheckpointsDir() / absl::StrCat(kCheckpointPrefix, state.step);
  // With the loss, so that it counts as a part of the training.
  ReportStep("saving checkpoint", state, loop.total_steps(), 0);
  std::optional<model::FolderInTheMaking> making;
  if (is_first()) {
    ASSIGN_OR_RETURN(auto created, model::FolderInTheMaking::Create(folder));
    making.emplace(std::move(created));
  }
  // What is written takes its time, in which nobody may wait in a collective. A stop waits as well.
  const auto wait_for_first = [&] { return group_->WaitForFirst([] { return false; }); };
  {
    ASSIGN_OR_RETURN(const Trained trained, CollectTrained(weights));
    if (is_first()) RETURN_IF_ERROR(write_files_(making->path(), trained));
  }
  RETURN_IF_ERROR(wait_for_first());
  RETURN_IF_ERROR(train::WriteState(making ? making->path() : folder, state, loop.optimizer(),
                                    weights, *group_));
  if (!is_first()) return wait_for_first();
  RETURN_IF_ERROR(making->Commit());
  RETURN_IF_ERROR(wait_for_first());
  Log(absl::StrCat("saved ", folder.string()));
  if (spec_.save_total_limit == 0) return absl::OkStatus();
  std::vector<CheckpointFolder> checkpoints = Checkpoints();
  const auto kept = std::min(checkpoints.size(), static_cast<size_t>(spec_.save_total_limit));
  checkpoints.resize(checkpoints.size() - kept);
  if (const absl::Status removed = Remove(checkpoints); !removed.ok())
    Warn(std::string(Message(removed)));
  return absl::OkStatus();
}

absl::Status TrainingJob::Train(train::Recipe& recipe, const DataSize& size,
                                const model::Decoder& model, train::TrainedWeights& weights,
                                WriteFiles write_files) {
  train::TrainerOptions options = spec_.trainer;
  options.batches.rows = size.rows;
  train::Trainer trainer(options, &recipe, &weights, group_.get());
  return Train(trainer, size, model, weights, std::move(write_files));
}

absl::Status TrainingJob::Train(train::TrainingLoop& loop, const DataSize& size,
                                const model::Decoder& model, train::TrainedWeights& weights,
                                WriteFiles write_files) {
  write_files_ = std::move(write_files);
  Log(absl::StrFormat(
      "training on %s, precision %s: %d of %d parameters, %d rows of %d tokens, %d steps, "
      "effective batch %d, ranks %d, ZeRO stage %d",
      device_.device().str(), spec_.precision(), weights.numel(), model.info().num_parameters,
      size.rows, size.tokens, loop.total_steps(), loop.effective_batch(), group_->world_size(),
      zero_stage()));
  ASSIGN_OR_RETURN(train::TrainerState state, StartState(loop, weights));
  int64_t last_epoch = static_cast<int64_t>(state.epoch + 1e-9);
  const int64_t tokens_before = state.tokens;
  const double begin = MonotonicSeconds();
  train::TrainerCallbacks callbacks;
  callbacks.is_stopped = context_.is_stopped;
  callbacks.on_line = [&](const Json& line) {
    const std::string text = DumpJson(line);
    Log(text);
    return AppendFile(MetricsPath(), text + "\n");
  };
  callbacks.on_step = [&](const train::TrainerState& now, int64_t total, double speed) {
    ReportStep("training", now, total, speed);
  };
  callbacks.wants_checkpoint = [&](const train::TrainerState& now, int64_t total) {
    return WantsCheckpoint(spec_, now, total, &last_epoch);
  };
  callbacks.save_checkpoint = [&](const train::TrainerState& now) {
    return SaveCheckpoint(now, loop, weights);
  };
  context_.on_progress({.stage = "starting training"});  // of which a first step says nothing yet
  ASSIGN_OR_RETURN(state_, loop.Run(std::move(state), callbacks));
  train_seconds_ = MonotonicSeconds() - begin;
  if (group_->world_size() > 1) {
    Log(absl::StrFormat("trained for %.1f s, %.1f s of them waiting for other ranks",
                        train_seconds_, absl::ToDoubleSeconds(group_->waited())));
  }
  trained_tokens_ = state_.tokens - tokens_before;
  return absl::OkStatus();
}

absl::Status TrainingJob::Save(train::TrainedWeights& weights, const std::string& folder,
                               OutputFile::Kind kind, const std::string& key) {
  if (!spec_.save_model) return absl::OkStatus();
  context_.on_progress(
      {.stage = kind == OutputFile::Kind::kFinalLora ? "saving adapter" : "saving model"});
  ASSIGN_OR_RETURN(const Trained trained, CollectTrained(weights));
  if (!is_first()) return absl::OkStatus();
  const fs::path path = context_.task_dir / folder;
  ASSIGN_OR_RETURN(auto making, model::FolderInTheMaking::Create(path));
  RETURN_IF_ERROR(write_files_(making.path(), trained));
  RETURN_IF_ERROR(making.Commit());
  saved_[key] = path.string();
  outputs_.push_back({.kind = kind, .task_id = context_.task_id, .path = path});
  Log(absl::StrCat("saved ", path.string()));
  return absl::OkStatus();
}

Json TrainingJob::ResumePath() const {
  if (!files_.overlay.empty()) return files_.overlay.string();
  return spec_.resume_from_path.empty() ? Json(nullptr) : Json(spec_.resume_from_path);
}

TaskOutcome TrainingJob::Outcome() const {
  Json result = {{"task_id", context_.task_id},
                 {"training_successful", true},
                 {"training_time_seconds", MonotonicSeconds() - begin_},
                 {"error_message", nullptr},
                 {"model_name", spec_.identifier},
                 {"dataset_size", dataset_size_},
                 {"output_dir", context_.task_dir.string()},
                 {"checkpoints_dir", CheckpointsDir().string()},
                 {"resume_from_path", ResumePath()}};
  result.update(saved_);
  const auto steps = static_cast<double>(std::max<int64_t>(state_.step, 1));
  result["train_loss"] = state_.loss_sum / steps;
  result["train_loss_final"] = state_.last_loss;
  result["global_steps"] = state_.step;
  result["epochs_completed"] = state_.epoch;
  result["num_tokens"] = state_.tokens;
  result["tokens_per_second"] =
      static_cast<double>(trained_tokens_) / std::max(train_seconds_, 1e-9);
  result["precision"] = spec_.precision();
  result["world_size"] = group_->world_size();
  result["metrics_file"] = kMetricsFile;
  result["metrics"] = state_.log.empty() ? Json::object() : state_.log.back();
  if (is_demo_data_) result["demo_data"] = true;
  return {std::move(result), outputs_};
}

Json TrainingJob::FailureRecord(const std::string& message) const {
  return {{"task_id", context_.task_id},
          {"training_successful", false},
          {"training_time_seconds", MonotonicSeconds() - begin_},
          {"error_message", message},
          {"model_name", spec_.identifier},
          {"dataset_size", dataset_size_},
          {"output_dir", context_.task_dir.string()},
          {"checkpoints_dir", CheckpointsDir().string()},
          {"resume_from_path", ResumePath()}};
}

TrainingJob::WriteFiles FullModelFiles(const TrainingJob& job, const model::Decoder& model,
                                       at::ScalarType dtype) {
  return [&job, &model, dtype](const fs::path& folder, const TrainingJob::Trained& trained) {
    const auto tensor_of = [&](const model::Parameter& parameter) {
      return trained.at(parameter.parts[0].name).to(dtype);
    };
    return model::WriteModelFiles(folder, job.base(),
                                  model::StoredTensors(model.parameters(), tensor_of));
  };
}

absl::StatusOr<TaskOutcome> RunTrainingTask(
    const TaskContext& context, const TrainingDefaults& defaults, const TrainingDevice& device,
    const EnvLookup& env,
    const std::function<absl::Status(const Field& spec, TrainingJob& job)>& method) {
  device::KeepFreedMemory();
  const Field spec = Field(&context.document, "")["spec"];
  TrainingDevice chosen = device;
  const absl::StatusOr<bool> enforces_cpu = spec["enforce_cpu"].BoolOr(false);
  if (enforces_cpu.ok() && *enforces_cpu) chosen.use_cuda = false;
  const bool is_first = env("RANK").value_or("0") == "0";  // there is no group yet
  const auto warn = [&](const std::string& text) {
    if (is_first) context.on_log(LogLevel::kWarning, text);
  };
  int ranks = 1;
  if (!absl::SimpleAtoi(env("WORLD_SIZE").value_or("1"), &ranks)) ranks = 1;  // Join says so
  absl::StatusOr<TrainingSpec> read =
      ReadTrainingSpec(spec, defaults, chosen.use_cuda, ranks, warn);
  TrainingSpec known;
  known.identifier = defaults.identifier;
  if (!enforces_cpu.ok()) read = enforces_cpu.status();
  TrainingJob job(context, read.ok() ? *read : known, chosen, env);
  const absl::Status status = read.ok() ? method(spec, job) : read.status();
  if (status.ok()) return job.Outcome();
  context.on_failure_record(job.FailureRecord(std::string(Message(status))));
  return status;
}

}  // namespace flowmesh::tasks
