// The `pre_tokenizer` of a tokenizer.json: cuts normalised text into the words that the model
// encodes one by one. Immutable, thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/status.h"

namespace flowmesh::text {

struct Piece {
  std::string text;
  bool starts_input = false;  // as in AddedTokens::Segment
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Replaces `pieces` (valid UTF-8) by finer ones, in order; empty ones are dropped.
  virtual void Apply(std::vector<Piece>& pieces) const = 0;
};

// All of the library but UnicodeScripts. Null for an absent spec. InvalidArgument: another type, or
// a malformed spec.
absl::StatusOr<std::unique_ptr<PreTokenizer>> MakePreTokenizer(const Field& spec);

}  // namespace flowmesh::text
