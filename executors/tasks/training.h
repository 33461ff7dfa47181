// What every training task does around its method: joins the other ranks, finds model and
// tokenizer, trains with checkpoints, metrics and progress, saves, and reports. A method (sft.cc,
// lora_sft.cc, dpo.cc, ppo.cc) reads from top to bottom in these terms.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/data/data_set.h"
#include "executors/model/checkpoint.h"
#include "executors/model/decoder.h"
#include "executors/parallel/process_group.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/task_runner.h"
#include "executors/tasks/training_spec.h"
#include "executors/train/recompute.h"
#include "executors/train/trainer.h"
#include "executors/train/weights.h"

namespace flowmesh::tasks {

// Where a rank trains.
struct TrainingDevice {
  bool use_cuda = false;
  at::Device gpu = at::kCPU;  // the rank's own; used where use_cuda

  at::Device device() const { return use_cuda ? gpu : at::Device(at::kCPU); }
};

// What a training reads in an epoch: rows, and their tokens as the model gets them.
struct DataSize {
  int64_t rows = 0;
  int64_t tokens = 0;
};

// What a model's weights are loaded for: to be trained (float32, which TrainedWeights turns into
// the task's precision), or to stay as they are, in that precision.
enum class WeightsFor { kTraining, kUse };

// One training task on one rank. One thread at a time.
class TrainingJob {
 public:
  TrainingJob(const TaskContext& context, TrainingSpec spec, const TrainingDevice& device,
              EnvLookup env);
  ~TrainingJob();

  // Joins the group that the environment names, and seeds the random numbers.
  absl::Status Join();
  // The model's files, opened, and its tokenizer: the base model's, or what checkpoint.load or
  // resume_from_path put in their place. An adapter there becomes part of the model when that is
  // loaded, unless the method goes on with it.
  absl::Status Open(bool continues_adapter = false);
  // Reads the weights, which the task's dtype is for.
  absl::StatusOr<std::unique_ptr<model::Decoder>> LoadModel(WeightsFor purpose);

  // Rank 0 first, since what is fetched from elsewhere is there for the others then.
  absl::Status InTurn(const std::function<absl::Status()>& load);
  data::DataContext data_context() const;
  const EnvLookup& env() const { return env_; }

  // Trains. `write_files` writes what a checkpoint and the final folder hold besides the state;
  // called on rank 0 with all trained tensors (float32) by name.
  using Trained = std::map<std::string, at::Tensor>;
  using WriteFiles =
      std::function<absl::Status(const std::filesystem::path& folder, const Trained& trained)>;
  absl::Status Train(train::Recipe& recipe, const DataSize& size, const model::Decoder& model,
                     train::TrainedWeights& weights, WriteFiles write_files);
  absl::Status Train(train::TrainingLoop& loop, const DataSize& size, const model::Decoder& model,
                     train::TrainedWeights& weights, WriteFiles write_files);

  // Writes `folder` (relative to the task's) unless the spec says not to, as an output of that
  // kind, whose path the result names under `key`.
  absl::Status Save(train::TrainedWeights& weights, const std::string& folder,
                    OutputFile::Kind kind, const std::string& key);

  // The result so far; rank 0's is the task's.
  TaskOutcome Outcome() const;
  // What responses.json holds when the task fails.
  Json FailureRecord(const std::string& message) const;

  const TrainingSpec& spec() const { return spec_; }
  // There is nothing to share in a world of one.
  int zero_stage() const { return group_->world_size() == 1 ? 0 : spec_.zero_stage; }
  const model::Checkpoint& base() const { return base_; }
  // The folder of an adapter that the method goes on with.
  std::optional<std::filesystem::path> start_adapter() const;
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  parallel::ProcessGroup& group() { return *group_; }
  void set_dataset_size(int64_t rows) { dataset_size_ = rows; }
  void set_demo_data() { is_demo_data_ = true; }
  bool is_first() const {
    return group_ == nullptr ? env_("RANK").value_or("0") == "0" : group_->rank() == 0;
  }
  // Progress in steps, with the last one's loss.
  void ReportStep(const std::string& stage, const train::TrainerState& state, int64_t total,
                  double tokens_per_second) const;
  void Log(const std::string& text) const;   // by rank 0
  void Warn(const std::string& text) const;  // likewise
  const TaskContext& context() const { return context_; }

 private:
  struct CheckpointFolder {
    int64_t step = 0;
    std::filesystem::path path;
  };
  // The task's own, the oldest first: not one that it begins with.
  std::vector<CheckpointFolder> Checkpoints() const;
  static absl::Status Remove(const std::vector<CheckpointFolder>& checkpoints);
  absl::StatusOr<train::TrainerState> StartState(train::TrainingLoop& loop,
                                                 train::TrainedWeights& weights);
  absl::Status CheckSameOnAllRanks(int64_t last_checkpoint) const;  // its step; 0: there is none
  absl::Status SaveCheckpoint(const train::TrainerState& state, train::TrainingLoop& loop,
                              train::TrainedWeights& weights);
  Json ResumePath() const;
  absl::StatusOr<Trained> CollectTrained(train::TrainedWeights& weights);
  std::filesystem::path CheckpointsDir() const { return context_.task_dir / "checkpoints"; }
  std::filesystem::path MetricsPath() const;

  const TaskContext& context_;
  const TrainingSpec spec_;
  const TrainingDevice device_;
  const EnvLookup env_;
  const double begin_;
  std::unique_ptr<parallel::ProcessGroup> group_;
  ModelFiles files_;
  bool continues_adapter_ = false;
  model::Checkpoint base_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  WriteFiles write_files_;
  int64_t dataset_size_ = 0;
  bool is_demo_data_ = false;
  train::TrainerState state_;
  int64_t trained_tokens_ = 0;  // by this process
  double train_seconds_ = 0;
  Json saved_ = Json::object();  // keys of the result about what was saved
  std::vector<OutputFile> outputs_;
};

// Runs a method with a job, and leaves the failure record with the context when it fails.
absl::StatusOr<TaskOutcome> RunTrainingTask(
    const TaskContext& context, const TrainingDefaults& defaults, const TrainingDevice& device,
    const EnvLookup& env,
    const std::function<absl::Status(const Field& spec, TrainingJob& job)>& method);

// What writes a whole model in that dtype beside the base's files. `job` and `model` must outlive
// it.
TrainingJob::WriteFiles FullModelFiles(const TrainingJob& job, const model::Decoder& model,
                                       at::ScalarType dtype);

// The training task types, each in a file of its name.
absl::StatusOr<TaskOutcome> RunSft(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env);
absl::StatusOr<TaskOutcome> RunLoraSft(const TaskContext& context, const TrainingDevice& device,
                                       const EnvLookup& env);
absl::StatusOr<TaskOutcome> RunDpo(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env);
absl::StatusOr<TaskOutcome> RunPpo(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env);

}  // namespace flowmesh::tasks
