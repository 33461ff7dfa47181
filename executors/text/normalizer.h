// The `normalizer` of a tokenizer.json: what happens to text before it is split. Immutable,
// thread-safe.
#pragma once

#include <memory>
#include <string>

#include "common/field.h"
#include "common/status.h"

namespace flowmesh::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Rewrites `text`, valid UTF-8 before and after. Says whether it still begins with what its first
  // character became: false where that was dropped. What replaces several characters comes from
  // the last of them, as in the reference.
  virtual bool Apply(std::string& text) const = 0;
};

// NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Lowercase, Strip, StripAccents, Replace, Prepend,
// BertNormalizer, ByteLevel and Sequence. Null for an absent spec. InvalidArgument: another type,
// or a malformed spec.
absl::StatusOr<std::unique_ptr<Normalizer>> MakeNormalizer(const Field& spec);

// The `pattern` of Replace and Split, `{"String": ...}` or `{"Regex": ...}`, as an expression.
absl::StatusOr<std::string> ReadPattern(const Field& pattern);

// Replaces every occurrence of a pattern: the normalizer and the decoder of the same name.
absl::StatusOr<std::unique_ptr<Normalizer>> MakeReplace(const Field& spec);

}  // namespace flowmesh::text
