// What the training task types have in common: `spec.training` and the model, read and checked as a
// whole before anything is loaded (TASKS.md 3.3, 4.3, 6).
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/env.h"
#include "common/field.h"
#include "common/status.h"
#include "executors/tasks/load_source.h"
#include "executors/train/trainer.h"

namespace flowmesh::tasks {

// The defaults in which the types differ.
struct TrainingDefaults {
  const char* identifier = "gpt2";
  double learning_rate = 5e-5;
  int64_t batch_size = 2;
  int64_t save_steps = 100;
  bool save_freq_first = false;   // the aliases that win
  bool per_device_first = false;  // per_device_train_batch_size
  double max_grad_norm = 1.0;     // 0: gradients are not clipped
  bool recompute = true;          // gradient_checkpointing
  bool shards = false;            // ZeRO stage 2 among several ranks unless the spec says otherwise
  bool bf16_on_gpu = false;       // unless `bf16: false`
  bool bf16_weights = false;      // bf16 means weights of that type, not autocast over float32
  const char* tokens_metric = "";  // of metrics lines; empty: none
  std::string_view own_keys = "";  // of spec.training that only the type reads, by a blank
};

struct TrainingSpec {
  enum class SaveStrategy { kSteps, kEpoch, kNo };

  std::string identifier, revision, download_dir;

  train::TrainerOptions trainer;  // without the number of rows
  SaveStrategy save_strategy = SaveStrategy::kSteps;
  int64_t save_steps = 100;
  int64_t save_total_limit = 0;  // checkpoints that are kept; 0: all
  bool save_model = true;
  bool recompute = true;
  uint64_t seed = 42;
  std::string resume_from_path;    // empty: none
  std::optional<LoadSource> load;  // what training begins with: checkpoint.load, else that path
  int zero_stage = 0;

  // The dtype of the computation here: bfloat16 where it is wanted and the device has it.
  c10::ScalarType compute = c10::ScalarType::Float;
  bool autocast = false;          // half precision for products only
  const char* precision() const;  // `fp32`, `bf16`, `fp16`
};

// `use_cuda`: the rank computes on a GPU. `ranks`: of the whole group. `warn` gets what is not an
// error. InvalidArgument names the field.
absl::StatusOr<TrainingSpec> ReadTrainingSpec(const Field& spec, const TrainingDefaults& defaults,
                                              bool use_cuda, int ranks,
                                              const std::function<void(const std::string&)>& warn);

}  // namespace flowmesh::tasks
