#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/text/model.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// Greedy longest-match-first from the left; a word that cannot be covered is one unknown token.
class WordPieceModel : public Model {
 public:
  WordPieceModel(Vocabulary vocabulary, TokenId unk_id, std::string prefix, size_t longest_word)
      : Model(std::move(vocabulary)),
        unk_id_(unk_id),
        prefix_(std::move(prefix)),
        longest_word_(longest_word) {}

  void Encode(std::string_view word, std::vector<TokenId>& ids) const override {
    const size_t characters =
        static_cast<size_t>(std::count_if(word.begin(), word.end(), StartsCharacter));
    const size_t before = ids.size();
    std::string piece;
    size_t begin = 0;
    while (begin < word.size() && characters <= longest_word_) {
      piece = begin > 0 ? prefix_ : std::string();
      const size_t prefix_length = piece.size();
      piece += word.substr(begin);
      std::optional<TokenId> id;
      // Shorten by one character at a time.
      while (piece.size() > prefix_length && !(id = vocabulary_.Find(piece)).has_value()) {
        while (!StartsCharacter(piece.back())) piece.pop_back();
        piece.pop_back();
      }
      if (!id.has_value()) break;
      ids.push_back(*id);
      begin += piece.size() - prefix_length;
    }
    if (begin < word.size()) {
      ids.resize(before);
      ids.push_back(unk_id_);
    }
  }

 private:
  TokenId unk_id_;
  std::string prefix_;
  size_t longest_word_;  // in characters
};

}  // namespace

absl::StatusOr<TokenId> ReadUnkToken(const Field& field, std::string_view fallback,
                                     const Vocabulary& vocabulary) {
  ASSIGN_OR_RETURN(const std::string token, field.StringOr(fallback));
  if (const std::optional<TokenId> id = vocabulary.Find(token)) return *id;
  return field.Error(absl::StrCat("\"", token.substr(0, 100), "\" is not in the vocabulary"));
}

absl::StatusOr<std::unique_ptr<Model>> MakeWordPieceModel(const Field& spec,
                                                          Vocabulary vocabulary) {
  ASSIGN_OR_RETURN(std::string prefix, spec["continuing_subword_prefix"].StringOr("##"));
  ASSIGN_OR_RETURN(const int64_t longest, spec["max_input_chars_per_word"].IntOr(100, 0));
  ASSIGN_OR_RETURN(const TokenId unk_id, ReadUnkToken(spec["unk_token"], "[UNK]", vocabulary));
  return std::make_unique<WordPieceModel>(std::move(vocabulary), unk_id, std::move(prefix),
                                          static_cast<size_t>(longest));
}

}  // namespace flowmesh::text
