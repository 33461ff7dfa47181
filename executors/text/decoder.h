// The `decoder` of a tokenizer.json: turns token texts back into running text. Immutable,
// thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/status.h"

namespace flowmesh::text {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Rewrites the texts in place, perhaps into fewer; joined together they are the decoded text.
  virtual void Apply(std::vector<std::string>& tokens) const = 0;
};

// ByteLevel, WordPiece, Metaspace, Replace, ByteFallback, Fuse, Strip, BPEDecoder, CTC and
// Sequence. Null for an absent spec. InvalidArgument: another type, or a malformed spec.
absl::StatusOr<std::unique_ptr<Decoder>> MakeDecoder(const Field& spec);

}  // namespace flowmesh::text
