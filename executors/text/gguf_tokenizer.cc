#include "executors/text/gguf_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// Texts that llama.cpp takes for control tokens whatever the file says.
bool LooksLikeControl(std::string_view text) {
  static const std::set<std::string_view> kTexts = {"<|eot_id|>",
                                                    "<|im_end|>",
                                                    "<|end|>",
                                                    "<|return|>",
                                                    "<|call|>",
                                                    "<|flush|>",
                                                    "<|calls|>",
                                                    "<end_of_turn>",
                                                    "<|endoftext|>",
                                                    "</s>",
                                                    "<|eom_id|>",
                                                    "<EOT>",
                                                    "_<EOT>",
                                                    "[EOT]",
                                                    "[EOS]",
                                                    "<|end_of_text|>",
                                                    "<end_of_utterance>",
                                                    "<eos>",
                                                    "<turn|>",
                                                    "<|tool_response>",
                                                    "<｜end▁of▁sentence｜>",
                                                    "[e~[",
                                                    "<|fim_prefix|>",
                                                    "<fim-prefix>",
                                                    "<fim_prefix>",
                                                    "<｜fim▁begin｜>",
                                                    "<PRE>",
                                                    "▁<PRE>",
                                                    "<|code_prefix|>",
                                                    "<|prefix|>",
                                                    "<|fim_suffix|>",
                                                    "<fim-suffix>",
                                                    "<fim_suffix>",
                                                    "<｜fim▁hole｜>",
                                                    "<SUF>",
                                                    "▁<SUF>",
                                                    "<|code_suffix|>",
                                                    "<|suffix|>",
                                                    "<|fim_middle|>",
                                                    "<fim-middle>",
                                                    "<fim_middle>",
                                                    "<｜fim▁end｜>",
                                                    "<MID>",
                                                    "▁<MID>",
                                                    "<|code_middle|>",
                                                    "<|middle|>",
                                                    "<|fim_pad|>",
                                                    "<fim-pad>",
                                                    "<fim_pad>",
                                                    "<PAD>",
                                                    "[PAD]",
                                                    "<|fim_repo|>",
                                                    "<|repo_name|>",
                                                    "<fim-repo>",
                                                    "<REPO>",
                                                    "<reponame>",
                                                    "<|file_sep|>"};
  return kTexts.contains(text);
}

// And those it always shows.
bool IsHarmonyMarker(std::string_view text) {
  return text == "<|channel|>" || text == "<|message|>" || text == "<|start|>" ||
         text == "<|constrain|>";
}

// The byte of `<0xNN>`; 0 for another form, as strtol gives.
char ByteOf(const std::string& token) {
  int value = 0;
  if (token.size() >= 5 && !absl::SimpleHexAtoi(token.substr(3, 2), &value)) value = 0;
  return static_cast<char>(value);
}

absl::Status CheckId(std::string_view name, const std::optional<int64_t>& id, size_t count) {
  if (!id.has_value() || (*id >= 0 && *id < static_cast<int64_t>(count))) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", ToAbsl(name),
                                                 ": expected a token id from 0 to ", count - 1,
                                                 ", got ", *id));
}

std::optional<TokenId> ToTokenId(const std::optional<int64_t>& id) {
  if (!id.has_value()) return std::nullopt;
  return static_cast<TokenId>(*id);
}

// What `llama` and `gpt2` files leave out.
absl::Status CompleteSpm(GgufVocabulary* v) {
  for (size_t i = 0; i < v->scores.size(); ++i) {
    if (std::isnan(v->scores[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.scores[", i, "]: expected a number, got NaN"));
    }
  }
  // llama.cpp's ids for files that do not name them.
  const auto set_default = [&](std::optional<int64_t>& id, int64_t fallback) {
    if (!id.has_value() && fallback < static_cast<int64_t>(v->tokens.size())) id = fallback;
  };
  set_default(v->bos_id, 1);
  set_default(v->eos_id, 2);
  set_default(v->unk_id, 0);
  v->add_bos = v->add_bos.value_or(true) && v->bos_id.has_value();
  v->add_eos = v->add_eos.value_or(false) && v->eos_id.has_value();
  v->add_space_prefix = v->add_space_prefix.value_or(true);
  return absl::OkStatus();
}

absl::Status CompleteBpe(GgufVocabulary* v) {
  const std::optional<PreTokenizerRule> rule = FindPreTokenizerRule(v->pre);
  if (!rule.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.pre: expected gpt-2, llama-bpe, qwen2 or default, got \"",
                     v->pre.substr(0, 100), "\""));
  }
  const auto check_named = [](std::string_view flag, const std::optional<bool>& wanted,
                              const std::optional<int64_t>& id,
                              std::string_view name) -> absl::Status {
    if (!wanted.value_or(false) || id.has_value()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", ToAbsl(flag),
                                                   ": is true, but there is no tokenizer.ggml.",
                                                   ToAbsl(name)));
  };
  RETURN_IF_ERROR(check_named("add_bos_token", v->add_bos, v->bos_id, "bos_token_id"));
  RETURN_IF_ERROR(check_named("add_eos_token", v->add_eos, v->eos_id, "eos_token_id"));
  v->add_bos = v->add_bos.value_or(rule->add_bos) && v->bos_id.has_value();
  v->add_eos = v->add_eos.value_or(false);
  return absl::OkStatus();
}

}  // namespace

TokenKind KindOf(std::string_view text, int32_t type) {
  if (IsHarmonyMarker(text)) return TokenKind::kUserDefined;
  if (LooksLikeControl(text)) return TokenKind::kControl;
  return type >= 1 && type <= 6 ? static_cast<TokenKind>(type) : TokenKind::kUndefined;
}

GgufTokenizer::GgufTokenizer(GgufVocabulary vocabulary)
    : tokens_(std::move(vocabulary.tokens)),
      add_bos_(*vocabulary.add_bos),
      add_eos_(*vocabulary.add_eos) {
  bos_id_ = ToTokenId(vocabulary.bos_id);
  eos_id_ = ToTokenId(vocabulary.eos_id);
  pad_id_ = ToTokenId(vocabulary.pad_id);
  unk_id_ = ToTokenId(vocabulary.unk_id);
  chat_template_ = std::move(vocabulary.chat_template);
  tool_template_ = std::move(vocabulary.tool_template);
  kinds_.reserve(tokens_.size());
  ids_.reserve(tokens_.size());
  std::vector<TokenId> special;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    kinds_.push_back(KindOf(tokens_[i], vocabulary.token_types[i]));
    ids_[ToAbsl(tokens_[i])] = static_cast<TokenId>(i);
    const TokenKind kind = kinds_.back();
    if (kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
        kind == TokenKind::kUnknown) {
      special.push_back(static_cast<TokenId>(i));
    }
  }
  std::stable_sort(special.begin(), special.end(),
                   [&](TokenId a, TokenId b) { return tokens_[a].size() > tokens_[b].size(); });
  special_rank_.assign(tokens_.size(), -1);
  TokenTrie::Entries entries;
  entries.reserve(special.size());
  for (size_t rank = 0; rank < special.size(); ++rank) {
    special_rank_[special[rank]] = static_cast<int32_t>(rank);
    entries.emplace_back(tokens_[special[rank]], special[rank]);
  }
  special_trie_ = TokenTrie(std::move(entries));
}

// llama.cpp seeks one special token after the other, the longest first, in what text is left. The
// trie first finds the few that occur at all.
std::vector<GgufTokenizer::Fragment> GgufTokenizer::CutSpecialTokens(std::string_view text) const {
  std::vector<Fragment> fragments;
  if (!text.empty()) fragments.push_back({text, std::nullopt});
  std::vector<TokenId> present;
  std::vector<bool> seen(tokens_.size());
  special_trie_.ForEachMatch(text, [&](TokenId id) {
    if (!seen[id]) present.push_back(id);
    seen[id] = true;
  });
  std::sort(present.begin(), present.end(),
            [&](TokenId a, TokenId b) { return special_rank_[a] < special_rank_[b]; });
  for (const TokenId id : present) {
    const std::string& token = tokens_[id];
    std::vector<Fragment> finer;
    finer.reserve(fragments.size() + 2);
    for (const Fragment& fragment : fragments) {
      if (fragment.id.has_value()) {
        finer.push_back(fragment);
        continue;
      }
      std::string_view rest = fragment.text;
      for (size_t found; (found = rest.find(token)) != std::string_view::npos;) {
        if (found > 0) finer.push_back({rest.substr(0, found), std::nullopt});
        finer.push_back({rest.substr(found, token.size()), id});
        rest.remove_prefix(found + token.size());
      }
      if (!rest.empty()) finer.push_back({rest, std::nullopt});
    }
    fragments = std::move(finer);
  }
  return fragments;
}

std::vector<TokenId> GgufTokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (!IsValidUtf8(text)) {
    repaired = ReplaceInvalidUtf8(text);
    text = repaired;
  }
  std::vector<TokenId> ids;
  if (add_special_tokens && add_bos_) ids.push_back(*bos_id_);
  bool after_special = true;
  for (const Fragment& fragment : CutSpecialTokens(text)) {
    if (fragment.id.has_value()) {
      ids.push_back(*fragment.id);
    } else {
      EncodeText(fragment.text, after_special, ids);
    }
    after_special = fragment.id.has_value();
  }
  if (add_special_tokens && add_eos_) ids.push_back(*eos_id_);
  return ids;
}

std::string GgufTokenizer::Decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const {
  std::string bytes;
  bool first = StripsLeadingSpace();
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size() || (skip_special_tokens && IsSpecial(id))) continue;
    std::string piece;
    switch (kinds_[id]) {
      case TokenKind::kNormal:
        piece = NormalTokenBytes(tokens_[id]);
        break;
      case TokenKind::kByte:
        piece.assign(1, ByteOf(tokens_[id]));
        break;
      case TokenKind::kControl:
      case TokenKind::kUnknown:
      case TokenKind::kUserDefined:
        piece = tokens_[id];
        break;
      case TokenKind::kUnused:
      case TokenKind::kUndefined:
        break;
    }
    const bool strips = first && !IsSpecial(id);
    if (strips && piece.starts_with(' ')) piece.erase(0, 1);
    if (strips) first = false;
    bytes += piece;
  }
  return ReplaceInvalidUtf8(bytes);
}

std::string GgufTokenizer::TokenText(TokenId id) const {
  return id >= 0 && id < vocab_size() ? tokens_[id] : std::string();
}

std::optional<TokenId> GgufTokenizer::TokenToId(std::string_view token) const {
  const auto found = ids_.find(ToAbsl(token));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool GgufTokenizer::IsSpecial(TokenId id) const {
  if (id < 0 || id >= vocab_size()) return false;
  return kinds_[id] == TokenKind::kControl || kinds_[id] == TokenKind::kUnknown;
}

absl::Status CompleteVocabulary(GgufVocabulary* v) {
  const size_t count = v->tokens.size();
  const auto check_length = [&](std::string_view name, size_t length) -> absl::Status {
    if (length == count) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.", ToAbsl(name), ": expected ",
                                                   count, " entries, one per token, got ", length));
  };
  if (count == 0) return absl::InvalidArgumentError("tokenizer.ggml.tokens: expected tokens");
  if (v->token_types.empty()) v->token_types.assign(count, 1);
  RETURN_IF_ERROR(check_length("token_type", v->token_types.size()));
  RETURN_IF_ERROR(CheckId("bos_token_id", v->bos_id, count));
  RETURN_IF_ERROR(CheckId("eos_token_id", v->eos_id, count));
  RETURN_IF_ERROR(CheckId("unknown_token_id", v->unk_id, count));
  RETURN_IF_ERROR(CheckId("padding_token_id", v->pad_id, count));
  for (size_t i = 0; i < count; ++i) {
    std::string& token = v->tokens[i];
    // llama.cpp reads the texts as C strings.
    if (const size_t nul = token.find('\0'); nul != std::string::npos) token.resize(nul);
    if (token.empty()) token = absl::StrCat("[EMPTY_", i, "]");
  }
  if (v->model == "llama") {
    if (v->scores.empty()) v->scores.assign(count, 0.0f);
    RETURN_IF_ERROR(check_length("scores", v->scores.size()));
    return CompleteSpm(v);
  }
  if (v->model == "gpt2") return CompleteBpe(v);
  return absl::InvalidArgumentError(absl::StrCat(
      "tokenizer.ggml.model: expected llama or gpt2, got \"", v->model.substr(0, 100), "\""));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(GgufVocabulary vocabulary) {
  RETURN_IF_ERROR(CompleteVocabulary(&vocabulary));
  return vocabulary.model == "llama" ? MakeGgufSpm(std::move(vocabulary))
                                     : MakeGgufBpe(std::move(vocabulary));
}

}  // namespace flowmesh::text
