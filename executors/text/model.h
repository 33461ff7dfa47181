// The `model` of a tokenizer.json: encodes one word. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/field.h"
#include "common/status.h"
#include "executors/text/vocabulary.h"

namespace flowmesh::text {

class Model {
 public:
  explicit Model(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  virtual ~Model() = default;

  // Appends the ids of `word` (valid UTF-8) to `ids`.
  virtual void Encode(std::string_view word, std::vector<TokenId>& ids) const = 0;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 protected:
  Vocabulary vocabulary_;
};

using MergeList = std::vector<std::pair<std::string, std::string>>;

// `spec` holds the settings of a BPE model: unk_token, fuse_unk, byte_fallback, ignore_merges,
// continuing_subword_prefix, end_of_word_suffix. InvalidArgument: malformed settings (dropout is
// refused), a merge that names unknown tokens.
absl::StatusOr<std::unique_ptr<Model>> MakeBpeModel(const Field& spec, Vocabulary vocabulary,
                                                    const MergeList& merges);

// Settings of a WordPiece model: unk_token, continuing_subword_prefix, max_input_chars_per_word.
// InvalidArgument: malformed settings, an unk_token that the vocabulary lacks.
absl::StatusOr<std::unique_ptr<Model>> MakeWordPieceModel(const Field& spec, Vocabulary vocabulary);

// Settings of a WordLevel model: unk_token. InvalidArgument: as of WordPiece's.
absl::StatusOr<std::unique_ptr<Model>> MakeWordLevelModel(const Field& spec, Vocabulary vocabulary);

// The id of the token that stands for unknown words. InvalidArgument: the vocabulary lacks it.
absl::StatusOr<TokenId> ReadUnkToken(const Field& field, std::string_view fallback,
                                     const Vocabulary& vocabulary);

using PieceList = std::vector<std::pair<std::string, double>>;

// Settings of a Unigram model: unk_id, byte_fallback. `pieces` are the texts and scores by id.
// InvalidArgument: malformed settings, no pieces, an unk_id that is none of them.
absl::StatusOr<std::unique_ptr<Model>> MakeUnigramModel(const Field& spec, PieceList pieces);

}  // namespace flowmesh::text
