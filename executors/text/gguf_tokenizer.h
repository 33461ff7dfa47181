// The parts that both kinds of GGUF tokenizer share: the token table, the special tokens that are
// cut out of raw text, BOS and EOS, decoding.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "executors/text/token_trie.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

// What a token is, with llama.cpp's overrides for tokens that models often mislabel.
enum class TokenKind : uint8_t {
  kUndefined,
  kNormal,
  kUnknown,
  kControl,
  kUserDefined,
  kUnused,
  kByte
};

// The kind of a token whose file says `type`.
TokenKind KindOf(std::string_view text, int32_t type);

// How a pre-tokenizer of `gpt2` cuts text: by one pattern after the other.
struct PreTokenizerRule {
  std::vector<std::string_view> patterns;
  bool ignore_merges = false;  // a word that is a token becomes it at once
  bool add_bos = false;        // when the file does not say
};
std::optional<PreTokenizerRule> FindPreTokenizerRule(std::string_view pre);

// Checks a vocabulary and completes it as llama.cpp does: texts as it reads them, types, scores and
// ids that are absent; add_bos and add_eos have values, and are true with an id alone. Errors as
// MakeGgufTokenizer.
absl::Status CompleteVocabulary(GgufVocabulary* vocabulary);

class GgufTokenizer : public Tokenizer {
 public:
  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const override;
  std::string Decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const override;
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }
  std::string TokenText(TokenId id) const override;
  std::optional<TokenId> TokenToId(std::string_view token) const override;
  bool IsSpecial(TokenId id) const override;

 protected:
  // `vocabulary` is complete.
  explicit GgufTokenizer(GgufVocabulary vocabulary);

  // Appends the ids of text that holds no special tokens. `after_special`: it is the start of the
  // text or follows a special token.
  virtual void EncodeText(std::string_view text, bool after_special,
                          std::vector<TokenId>& ids) const = 0;
  // The bytes of a normal token.
  virtual std::string NormalTokenBytes(const std::string& token) const = 0;
  // Whether one space at the start of a decoded text is the tokenizer's own.
  virtual bool StripsLeadingSpace() const { return false; }

  std::vector<std::string> tokens_;

 private:
  // A stretch of text: a special token, or plain.
  struct Fragment {
    std::string_view text;
    std::optional<TokenId> id;
  };
  std::vector<Fragment> CutSpecialTokens(std::string_view text) const;

  std::vector<TokenKind> kinds_;
  absl::flat_hash_map<absl::string_view, TokenId> ids_;  // keys point into tokens_
  TokenTrie special_trie_;
  std::vector<int32_t> special_rank_;  // by id: place among special tokens, longest first; -1: none
  bool add_bos_, add_eos_;
};

// Of complete vocabularies. `tokenizer.ggml.model` = `llama`: SentencePiece's BPE by scores.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufSpm(GgufVocabulary vocabulary);
// `gpt2`: byte-level BPE by merges.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufBpe(GgufVocabulary vocabulary);

}  // namespace flowmesh::text
