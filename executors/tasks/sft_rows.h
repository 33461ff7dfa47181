// The rows that `sft` and `lora_sft` train on.
#pragma once

#include <vector>

#include "executors/data/training_data.h"
#include "executors/tasks/training.h"
#include "executors/train/sft.h"

namespace flowmesh::tasks {

// What sft and lora_sft read of spec.training beyond what all types do (TrainingDefaults).
inline constexpr char kSftKeys[] = "max_length max_seq_length packing";

struct SftRowOptions {
  int64_t max_seq_length = 1024;
  bool packing = false;
};
absl::StatusOr<SftRowOptions> ReadSftRowOptions(const Field& spec);

// Loads and encodes the data, and tells the job how many rows of data there are. A length beyond
// the model's limit is lowered to it with a warning.
absl::StatusOr<std::vector<train::SftRow>> LoadSftRows(const data::SftData& data,
                                                       const SftRowOptions& options,
                                                       TrainingJob& job);

DataSize SizeOf(const std::vector<train::SftRow>& rows);

}  // namespace flowmesh::tasks
