// Tokens that stand outside the model: found in running text before anything else happens to it,
// exactly as HF tokenizers does.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/field.h"
#include "common/status.h"
#include "executors/text/normalizer.h"
#include "executors/text/token_trie.h"
#include "executors/text/vocabulary.h"

namespace flowmesh::text {

struct AddedToken {
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes white space on its left along
  bool rstrip = false;       // and on its right
  bool normalized = true;    // sought in the normalised text, else in the raw text
  bool special = false;      // left out by Decode when special tokens are skipped

  bool operator==(const AddedToken&) const = default;
};

// `{"content": ..., "lstrip": ..., ...}`; absent flags are false, but `normalized` is !special.
absl::StatusOr<AddedToken> ReadAddedToken(const Field& spec);

// Thread-compatible while tokens are added; after Prepare it is immutable and thread-safe.
class AddedTokens {
 public:
  // Adds or changes tokens. A token that neither `vocabulary` nor an earlier call knows gets the
  // next free id.
  void Add(const std::vector<AddedToken>& tokens, const Vocabulary& vocabulary);

  // To be called once after the last Add and before Split. `normalizer` may be null.
  void Prepare(const Vocabulary& vocabulary, const Normalizer* normalizer);

  struct Segment {
    std::string text;           // normalised, when it is no added token
    std::optional<TokenId> id;  // the added token
    bool starts_input = false;  // begins with what the first character of the text became
  };
  // Cuts raw text into added tokens and the normalised text between them.
  std::vector<Segment> Split(std::string_view text, const Normalizer* normalizer) const;

  std::optional<TokenId> Find(std::string_view content) const;
  const AddedToken* Get(TokenId id) const;  // null when `id` is not an added token
  bool IsSpecial(std::string_view content) const;
  TokenId id_end() const { return id_end_; }  // one past the largest id, 0 without tokens

 private:
  struct Part {
    size_t begin, end;
    std::optional<TokenId> id;
  };
  std::vector<Part> FindParts(std::string_view text, const TokenTrie& trie) const;

  absl::flat_hash_map<std::string, TokenId> ids_;
  absl::flat_hash_map<TokenId, AddedToken> by_id_;
  // In the order they came; an entry keeps its first attributes, by_id_ has the latest.
  std::vector<AddedToken> special_, classic_;
  std::set<std::string, std::less<>> special_contents_;
  TokenId id_end_ = 0;
  TokenTrie raw_trie_, normalized_trie_;  // values are ids
};

}  // namespace flowmesh::text
