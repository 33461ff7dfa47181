// A GGUF file's tokenizer as the files of a Hugging Face folder, for models that are written in
// that form (TASKS.md 5.3, 5.5).
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

struct TokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
};

// `max_length`: the model's limit in tokens. The files give the ids of MakeGgufTokenizer, as far as
// merges in a fixed order can: of pairs with one score that overlap in a text, scores choose the
// leftmost, which no order does for `a b` and `b a` (in `aba` and `bab`) or `aa a` and `a aa`.
// Special tokens that overlap are cut out leftmost first, not longest first. Errors as
// MakeGgufTokenizer.
absl::StatusOr<TokenizerFiles> ExportGgufTokenizer(GgufVocabulary vocabulary, int64_t max_length);

}  // namespace flowmesh::text
