// Weights that take the place of a model's own (TASKS.md 2.9): a whole model, a file of weights, or
// an adapter.
#pragma once

#include <filesystem>

#include "common/status.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::model {

enum class OverlayKind {
  kWhole,    // needs no other model: a GGUF file, or a folder with a tokenizer of its own
  kModel,    // a folder that lacks a tokenizer alone
  kWeights,  // a file of weights, or a folder without a configuration
  kAdapter,  // a folder with an adapter and no weights of a model
};

// What lies at `path`. NotFound, InvalidArgument: none of these, or in a format that is not read;
// the text names the file and what is needed.
absl::StatusOr<OverlayKind> RecogniseOverlay(const std::filesystem::path& path);

// `base`, which may be empty for kWhole, with what `path` has in its place: of an adapter that is
// the tokenizer, if it has one. Errors as OpenCheckpoint.
absl::StatusOr<Checkpoint> OpenOverlay(const std::filesystem::path& path, OverlayKind kind,
                                       Checkpoint base);

}  // namespace flowmesh::model
