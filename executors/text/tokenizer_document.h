// Reads tokenizer.json and its kin. The vocabulary and the merges, hundreds of thousands of
// entries, go straight into flat lists: no document tree is built for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::text {

struct TokenizerDocument {
  Json root;  // everything but the lists below
  // model.vocab when it is a map: (text, id).
  std::optional<std::vector<std::pair<std::string, int64_t>>> vocab;
  // model.vocab when it is a list: (text, score), by id.
  std::optional<std::vector<std::pair<std::string, double>>> pieces;
  // model.merges, in either of its forms: "a b" or ["a", "b"].
  std::optional<std::vector<std::pair<std::string, std::string>>> merges;
};

// InvalidArgument: not JSON, nested deeper than kMaxJsonDepth, or a vocabulary or merge entry of
// another form, by its path.
absl::StatusOr<TokenizerDocument> ParseTokenizerDocument(std::string_view text);

// A file that holds nothing but a map from text to id (vocab.json).
absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> ParseVocabulary(std::string_view text);

// "a b" as its two halves; nothing for any other form.
std::optional<std::pair<std::string, std::string>> SplitMerge(std::string_view line);

}  // namespace flowmesh::text
