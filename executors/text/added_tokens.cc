#include "executors/text/added_tokens.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "common/strings.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// The character that ends at text[end].
char32_t LastCodePoint(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && !StartsCharacter(text[begin])) --begin;
  return NextCodePoint(text, begin);
}

size_t SkipSpaceLeft(std::string_view text, size_t end) {
  while (end > 0) {
    const char32_t c = LastCodePoint(text, end);
    if (!IsWhiteSpace(c)) break;
    do {
      --end;
    } while (end > 0 && !StartsCharacter(text[end]));
  }
  return end;
}

size_t SkipSpaceRight(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t next = begin;
    if (!IsWhiteSpace(NextCodePoint(text, next))) break;
    begin = next;
  }
  return begin;
}

bool IsSingleWord(std::string_view text, size_t begin, size_t end) {
  size_t next = end;
  return (begin == 0 || !IsWordCharacter(LastCodePoint(text, begin))) &&
         (end == text.size() || !IsWordCharacter(NextCodePoint(text, next)));
}

}  // namespace

absl::StatusOr<AddedToken> ReadAddedToken(const Field& spec) {
  RETURN_IF_ERROR(spec.CheckMap());
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, spec["content"].String());
  ASSIGN_OR_RETURN(token.single_word, spec["single_word"].BoolOr(false));
  ASSIGN_OR_RETURN(token.lstrip, spec["lstrip"].BoolOr(false));
  ASSIGN_OR_RETURN(token.rstrip, spec["rstrip"].BoolOr(false));
  ASSIGN_OR_RETURN(token.special, spec["special"].BoolOr(false));
  ASSIGN_OR_RETURN(token.normalized, spec["normalized"].BoolOr(!token.special));
  return token;
}

void AddedTokens::Add(const std::vector<AddedToken>& tokens, const Vocabulary& vocabulary) {
  for (const AddedToken& token : tokens) {
    if (token.special && !token.content.empty() && special_contents_.insert(token.content).second) {
      special_.push_back(token);
    }
  }
  TokenId next_id = std::max(id_end_, static_cast<TokenId>(vocabulary.token_count()));
  for (const AddedToken& token : tokens) {
    if (token.content.empty()) continue;
    std::optional<TokenId> id = Find(token.content);
    if (!id.has_value()) id = vocabulary.Find(token.content);
    if (id.has_value()) {
      const AddedToken* known = Get(*id);
      if (known != nullptr && *known == token) continue;
    } else {
      id = next_id++;
    }
    ids_[token.content] = *id;
    by_id_[*id] = token;
    id_end_ = std::max(id_end_, *id + 1);
    if (!special_contents_.contains(token.content)) classic_.push_back(token);
  }
}

void AddedTokens::Prepare(const Vocabulary& vocabulary, const Normalizer* normalizer) {
  TokenTrie::Entries raw, normalized;
  std::deque<std::string> contents;  // what the views into normalised texts point at
  for (const std::vector<AddedToken>* tokens : {&special_, &classic_}) {
    for (const AddedToken& token : *tokens) {
      std::optional<TokenId> id = Find(token.content);
      if (!id.has_value()) id = vocabulary.Find(token.content);
      if (!id.has_value()) continue;
      if (!token.normalized) {
        raw.emplace_back(token.content, *id);
        continue;
      }
      std::string& content = contents.emplace_back(token.content);
      if (normalizer != nullptr) normalizer->Apply(content);
      normalized.emplace_back(content, *id);
    }
  }
  raw_trie_ = TokenTrie(std::move(raw));
  normalized_trie_ = TokenTrie(std::move(normalized));
}

std::vector<AddedTokens::Part> AddedTokens::FindParts(std::string_view text,
                                                      const TokenTrie& trie) const {
  std::vector<Part> parts;
  size_t covered = 0;
  size_t search_from = 0;
  while (const std::optional<TokenTrie::Match> match = trie.FindLongest(text, search_from)) {
    search_from = match->end;
    const AddedToken* token = Get(match->value);
    if (token == nullptr) continue;
    size_t begin = match->begin, end = match->end;
    if (token->single_word && !IsSingleWord(text, begin, end)) continue;
    // White space that an earlier token took along stays with it.
    if (token->lstrip) begin = std::max(SkipSpaceLeft(text, begin), covered);
    if (token->rstrip) end = SkipSpaceRight(text, end);
    if (covered < begin) parts.push_back({covered, begin, std::nullopt});
    parts.push_back({begin, end, match->value});
    covered = end;
  }
  if (covered < text.size()) parts.push_back({covered, text.size(), std::nullopt});
  return parts;
}

std::vector<AddedTokens::Segment> AddedTokens::Split(std::string_view text,
                                                     const Normalizer* normalizer) const {
  std::vector<Segment> segments;
  for (const Part& raw : FindParts(text, raw_trie_)) {
    std::string piece(text.substr(raw.begin, raw.end - raw.begin));
    if (raw.id.has_value()) {
      segments.push_back({std::move(piece), raw.id, raw.begin == 0});
      continue;
    }
    bool starts_input = raw.begin == 0;
    if (normalizer != nullptr) starts_input &= normalizer->Apply(piece);
    if (normalized_trie_.empty()) {
      if (!piece.empty()) segments.push_back({std::move(piece), std::nullopt, starts_input});
      continue;
    }
    for (const Part& part : FindParts(piece, normalized_trie_)) {
      segments.push_back({piece.substr(part.begin, part.end - part.begin), part.id,
                          starts_input && part.begin == 0});
    }
  }
  return segments;
}

std::optional<TokenId> AddedTokens::Find(std::string_view content) const {
  const auto found = ids_.find(ToAbsl(content));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const AddedToken* AddedTokens::Get(TokenId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

bool AddedTokens::IsSpecial(std::string_view content) const {
  return special_contents_.contains(content);
}

}  // namespace flowmesh::text
