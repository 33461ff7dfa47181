#include "executors/text/hf_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/strings.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

absl::StatusOr<std::unique_ptr<Model>> MakeModel(TokenizerDocument& document, const Field& spec) {
  RETURN_IF_ERROR(spec.CheckMap());
  if (!spec.present()) return spec.Expected("a map");
  // Old files do not name the type; of the supported models only BPE has merges, only Unigram a
  // list of pieces.
  ASSIGN_OR_RETURN(const std::string type,
                   spec["type"].StringOr(document.merges.has_value()   ? "BPE"
                                         : document.pieces.has_value() ? "Unigram"
                                                                       : ""));
  if (type != "BPE" && type != "WordPiece" && type != "WordLevel" && type != "Unigram") {
    if (!spec["type"].present()) {
      return spec["type"].Expected("BPE, WordPiece, WordLevel or Unigram");
    }
    return spec["type"].Error(absl::StrCat("the model \"", type, "\" is not supported"));
  }
  if (type == "Unigram") {
    if (!document.pieces.has_value()) return spec["vocab"].Error("expected a list of pieces");
    return MakeUnigramModel(spec, *std::move(document.pieces));
  }
  if (!document.vocab.has_value()) return spec["vocab"].Error("expected a map from token to id");
  ASSIGN_OR_RETURN(Vocabulary vocabulary,
                   Vocabulary::Build(*std::move(document.vocab), "model.vocab"));
  if (type == "WordLevel") return MakeWordLevelModel(spec, std::move(vocabulary));
  if (type == "WordPiece") return MakeWordPieceModel(spec, std::move(vocabulary));
  if (!document.merges.has_value()) return spec["merges"].Expected("a list of merges");
  return MakeBpeModel(spec, std::move(vocabulary), *document.merges);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> HfTokenizer::Make(TokenizerDocument document,
                                                             const TokenizerConfig& config) {
  const Field root(&document.root, "");
  RETURN_IF_ERROR(root.CheckMap());
  ASSIGN_OR_RETURN(const std::unique_ptr<Normalizer> own_normalizer,
                   MakeNormalizer(root["normalizer"]));
  ApplyOverrides(config, document.root);
  std::unique_ptr<HfTokenizer> made(new HfTokenizer);
  ASSIGN_OR_RETURN(made->normalizer_, MakeNormalizer(root["normalizer"]));
  ASSIGN_OR_RETURN(made->pre_tokenizer_, MakePreTokenizer(root["pre_tokenizer"]));
  ASSIGN_OR_RETURN(made->post_processor_, PostProcessor::Make(root["post_processor"]));
  ASSIGN_OR_RETURN(made->decoder_, MakeDecoder(root["decoder"]));
  ASSIGN_OR_RETURN(made->model_, MakeModel(document, root["model"]));
  RETURN_IF_ERROR(made->AddTokens(root["added_tokens"], config));
  made->added_tokens_.Prepare(made->model_->vocabulary(), own_normalizer.get());
  RETURN_IF_ERROR(made->SetSpecialIds(config));
  made->model_max_length_ = config.model_max_length;
  made->chat_template_ = config.chat_template;
  made->tool_template_ = config.tool_template;
  return made;
}

// In the order of the reference: the file's own tokens, then those of the configuration, then the
// named special tokens.
absl::Status HfTokenizer::AddTokens(const Field& added_tokens, const TokenizerConfig& config) {
  const Vocabulary& vocabulary = model_->vocabulary();
  RETURN_IF_ERROR(added_tokens.CheckList());
  std::vector<AddedToken> tokens;
  for (size_t i = 0; i < added_tokens.size(); ++i) {
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(added_tokens[i]));
    tokens.push_back(std::move(token));
  }
  added_tokens_.Add(tokens, vocabulary);
  added_tokens_.Add(config.added_tokens, vocabulary);

  // Attributes by content: added_tokens_decoder alone where there is one.
  absl::flat_hash_map<std::string, AddedToken> described;
  for (const AddedToken& token : config.added_tokens) described[token.content] = token;
  if (!config.has_added_tokens) {
    for (const AddedToken& token : tokens) described[token.content] = token;
  }
  for (const NamedToken& named : config.special_tokens) {
    AddedToken token = named.token;
    if (const auto found = described.find(token.content); found != described.end()) {
      token = found->second;
    } else if (named.plain) {
      if (added_tokens_.Find(token.content).has_value()) continue;
      if (named.is_default && !vocabulary.Find(token.content).has_value()) continue;
      token.normalized = false;
    }
    token.special = true;
    added_tokens_.Add({token}, vocabulary);
  }
  return absl::OkStatus();
}

absl::Status HfTokenizer::SetSpecialIds(const TokenizerConfig& config) {
  for (const NamedToken& named : config.special_tokens) {
    const std::optional<TokenId> id = TokenToId(named.token.content);
    if (named.name == "bos_token") bos_id_ = id;
    if (named.name == "eos_token") eos_id_ = id;
    if (named.name == "pad_token") pad_id_ = id;
    if (named.name == "unk_token") unk_id_ = id;
  }
  if (!config.own_template) return absl::OkStatus();
  std::vector<TokenId> before, after;
  if (config.add_bos) {
    if (!bos_id_.has_value()) {
      return absl::InvalidArgumentError("add_bos_token is true, but there is no bos_token");
    }
    before.push_back(*bos_id_);
  }
  if (config.add_eos) {
    if (!eos_id_.has_value()) {
      return absl::InvalidArgumentError("add_eos_token is true, but there is no eos_token");
    }
    after.push_back(*eos_id_);
  }
  post_processor_ = PostProcessor(std::move(before), std::move(after));
  return absl::OkStatus();
}

std::vector<TokenId> HfTokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ReplaceInvalidUtf8(text);
    text = repaired;
  }
  std::vector<TokenId> ids;
  std::vector<Piece> pieces;
  for (AddedTokens::Segment& segment : added_tokens_.Split(text, normalizer_.get())) {
    if (segment.id.has_value()) {
      ids.push_back(*segment.id);
      continue;
    }
    pieces.clear();
    pieces.push_back({std::move(segment.text), segment.starts_input});
    if (pre_tokenizer_ != nullptr) pre_tokenizer_->Apply(pieces);
    for (const Piece& piece : pieces) model_->Encode(piece.text, ids);
  }
  return post_processor_.Apply(std::move(ids), add_special_tokens);
}

std::string HfTokenizer::Decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const TokenId id : ids) {
    const AddedToken* added = added_tokens_.Get(id);
    if (added == nullptr && !model_->vocabulary().Has(id)) continue;
    const std::string& text = added != nullptr ? added->content : model_->vocabulary().Text(id);
    if (skip_special_tokens && added_tokens_.IsSpecial(text)) continue;
    tokens.push_back(text);
  }
  if (decoder_ == nullptr) return absl::StrJoin(tokens, " ");
  decoder_->Apply(tokens);
  return absl::StrJoin(tokens, "");
}

int HfTokenizer::vocab_size() const {
  return std::max(model_->vocabulary().id_end(), added_tokens_.id_end());
}

std::string HfTokenizer::TokenText(TokenId id) const {
  const AddedToken* added = added_tokens_.Get(id);
  return added != nullptr ? added->content : model_->vocabulary().Text(id);
}

std::optional<TokenId> HfTokenizer::TokenToId(std::string_view token) const {
  const std::optional<TokenId> added = added_tokens_.Find(token);
  return added.has_value() ? added : model_->vocabulary().Find(token);
}

bool HfTokenizer::IsSpecial(TokenId id) const {
  const std::string text = TokenText(id);
  return !text.empty() && added_tokens_.IsSpecial(text);
}

}  // namespace flowmesh::text
