// YAML text to JSON with YAML 1.1 scalars, as PyYAML reads them: `yes` is a boolean, `5e-7` (no
// dot) is text, a date is ISO text. Both sides read YAML for people only; the wire is JSON.
#pragma once

#include <string_view>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh {

// What becomes of a key that a map has twice.
enum class DoubledKeys {
  kMistake,
  kLastWins,  // as in PyYAML: for the files of strangers
};

// One document. InvalidArgument with line and column for bad YAML, for an alias bomb or nesting
// deeper than kMaxJsonDepth, for a key that is no scalar, and for one that is doubled.
absl::StatusOr<Json> ParseYaml(std::string_view text, DoubledKeys doubled = DoubledKeys::kMistake);

}  // namespace flowmesh
