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
// merges in a fixed order can: where the same piece can come of two pairs that overlap in a text
// (`aaaa` with a piece `aaa`), scores choose the leftmost, merges the earlier one. Special tokens
// that overlap are cut out leftmost first, not longest first. Errors as MakeGgufTokenizer.
absl::StatusOr<TokenizerFiles> ExportGgufTokenizer(GgufVocabulary vocabulary, int64_t max_length);

}  // namespace flowmesh::text
