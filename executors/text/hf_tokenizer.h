// A tokenizer assembled from the parts of a tokenizer.json.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "executors/text/added_tokens.h"
#include "executors/text/decoder.h"
#include "executors/text/model.h"
#include "executors/text/normalizer.h"
#include "executors/text/post_processor.h"
#include "executors/text/pre_tokenizer.h"
#include "executors/text/tokenizer.h"
#include "executors/text/tokenizer_config.h"
#include "executors/text/tokenizer_document.h"

namespace flowmesh::text {

class HfTokenizer : public Tokenizer {
 public:
  // `document` with what `config` adds and overrides. InvalidArgument: a malformed or unsupported
  // component, by its path in the document.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Make(TokenizerDocument document,
                                                         const TokenizerConfig& config);

  std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const override;
  std::string Decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const override;
  int vocab_size() const override;
  std::string TokenText(TokenId id) const override;
  std::optional<TokenId> TokenToId(std::string_view token) const override;
  bool IsSpecial(TokenId id) const override;

 private:
  HfTokenizer() = default;

  absl::Status AddTokens(const Field& added_tokens, const TokenizerConfig& config);
  absl::Status SetSpecialIds(const TokenizerConfig& config);

  std::unique_ptr<Normalizer> normalizer_;       // may be null
  std::unique_ptr<PreTokenizer> pre_tokenizer_;  // may be null
  std::unique_ptr<Model> model_;
  PostProcessor post_processor_;
  std::unique_ptr<Decoder> decoder_;  // may be null
  AddedTokens added_tokens_;
};

}  // namespace flowmesh::text
