// The state of a training on disk, so that it goes on exactly where it was: weights in full
// precision, the optimiser's moments, the loop's place, and every rank's random numbers.
#pragma once

#include <filesystem>

#include "common/status.h"
#include "executors/parallel/process_group.h"
#include "executors/train/adamw.h"
#include "executors/train/trainer.h"
#include "executors/train/weights.h"

namespace flowmesh::train {

// Into `folder`, which exists, as trainer_state.json and training_state.safetensors. Every rank
// must call it; rank 0 writes.
absl::Status WriteState(const std::filesystem::path& folder, const TrainerState& state,
                        const AdamW& optimizer, TrainedWeights& weights,
                        parallel::ProcessGroup& group);

// The opposite, on every rank, with any number of ranks (the random numbers go on only with the
// same). InvalidArgument: not written by this, or by a training of other weights.
absl::StatusOr<TrainerState> ReadState(const std::filesystem::path& folder, AdamW& optimizer,
                                       TrainedWeights& weights, parallel::ProcessGroup& group);

}  // namespace flowmesh::train
