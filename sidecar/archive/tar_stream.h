// A folder as a tar stream, in this process.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "sidecar/archive/byte_sink.h"

namespace flowmesh::sidecar {

// One top-level entry, the folder's name; sorted names, fixed times, owners and modes, so that the
// same content gives the same bytes everywhere. GNU format: it takes names of any length and any
// bytes as they are, and every tar reads it. `skipped` gets what does not belong into it
// (WalkFolder). FailedPrecondition when a file changes while it is read.
absl::Status WriteTar(const std::filesystem::path& folder, const ByteSink& sink,
                      std::vector<std::string>& skipped);

}  // namespace flowmesh::sidecar
