// SentencePiece's compiled normalisation rules (`precompiled_charsmap`): a map from short strings
// to what replaces them. Immutable, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flowmesh::text {

class Charsmap {
 public:
  // The form is little-endian: the size in bytes of a trie (32 bits), the trie as darts-clone's
  // units of 32 bits, then the replacements, each with a NUL at its end. InvalidArgument: cut
  // short, replacements that are no UTF-8, or a trie that leads out of itself or out of the
  // replacements.
  static absl::StatusOr<Charsmap> Parse(std::string_view bytes);

  // What replaces the shortest prefix of `text` that has a rule; nothing when none has. The view is
  // into this map.
  std::optional<std::string_view> Find(std::string_view text) const;

 private:
  Charsmap() = default;

  absl::Status Check() const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace flowmesh::text
