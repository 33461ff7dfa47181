#include "executors/retrieval/chunker.h"

#include <algorithm>
#include <utility>

#include "absl/types/span.h"
#include "common/strings.h"

namespace flowmesh::retrieval {
namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";

// A word is at most so many bytes for each token of a passage, that none is counted as a whole
// which is a whole document: Chinese, minified JSON.
constexpr size_t kBytesOfAToken = 16;
constexpr size_t kLeastBytes = 4096;

// What ends a sentence, and what may close behind it. Those of the second list have no blank behind
// them: a paragraph of Chinese or Japanese is one word.
constexpr std::string_view kFullStops[] = {".", "!", "?", "\u2026", "\u0964", "\u061f", "\u06d4"};
constexpr std::string_view kWideFullStops[] = {"\u3002", "\uff01", "\uff1f", "\uff61"};
constexpr std::string_view kClosing[] = {"\"",     "'",      ")",      "]",      "\u201d", "\u2019",
                                         "\u00bb", "\u300d", "\u300f", "\uff09", "\u3011"};

// How many bytes of the text's beginning, or end, are one of `marks`.
size_t MarkAt(std::string_view text, size_t at, absl::Span<const std::string_view> marks) {
  for (const std::string_view mark : marks) {
    if (text.substr(at).starts_with(mark)) return mark.size();
  }
  return 0;
}
size_t MarkAtEnd(std::string_view text, absl::Span<const std::string_view> marks) {
  for (const std::string_view mark : marks) {
    if (text.ends_with(mark)) return mark.size();
  }
  return 0;
}

// Behind the first sentence of a word in which several may end.
size_t FirstSentenceEnd(std::string_view word) {
  for (size_t at = 0; at < word.size(); ++at) {
    if (MarkAt(word, at, kWideFullStops) == 0) continue;
    while (const size_t bytes = MarkAt(word, at, kWideFullStops)) at += bytes;
    while (const size_t bytes = MarkAt(word, at, kClosing)) at += bytes;
    return at;
  }
  return word.size();
}

// The greatest place of a character's first byte that is not behind `at`, but one behind `begin`.
size_t CharacterEnd(std::string_view text, size_t begin, size_t at) {
  const auto is_inside = [&](size_t i) { return i < text.size() && !StartsCharacter(text[i]); };
  while (at > begin && is_inside(at)) --at;
  if (at > begin) return at;
  for (++at; is_inside(at);) ++at;
  return at;
}

}  // namespace

Chunker::Chunker(std::string_view document, const std::vector<Heading>& headings,
                 const ChunkOptions& options, CountTokens count_tokens)
    : document_(document),
      headings_(headings),
      options_(options),
      count_tokens_(std::move(count_tokens)) {}

std::string_view Chunker::TextOf(const Piece& piece) const {
  return document_.substr(piece.begin, piece.end - piece.begin);
}

bool Chunker::NextSection() {
  if (section_end_ == document_.size()) return false;
  at_ = section_end_;
  section_end_ = document_.size();
  if (options_.by != ChunkOptions::By::kHeadings) return true;
  while (next_section_ < headings_.size() && headings_[next_section_].begin <= at_) {
    ++next_section_;
  }
  if (next_section_ < headings_.size()) section_end_ = headings_[next_section_].begin;
  return true;
}

std::optional<Chunker::Piece> Chunker::NextWord() {
  const std::string_view text = document_.substr(0, section_end_);
  const size_t begin = text.find_first_not_of(kBlank, at_);
  if (begin == std::string_view::npos) {
    at_ = section_end_;
    return std::nullopt;
  }
  const auto size = static_cast<size_t>(options_.size);
  const size_t most = std::max(kLeastBytes, size * kBytesOfAToken);
  at_ = std::min(text.find_first_of(kBlank, begin), section_end_);
  if (at_ - begin > most) at_ = CharacterEnd(text, begin, begin + most);
  if (options_.by == ChunkOptions::By::kSentences) {
    at_ = begin + FirstSentenceEnd(text.substr(begin, at_ - begin));
  }
  while (true) {
    const int64_t tokens = count_tokens_(text.substr(begin, at_ - begin));
    const size_t one = CharacterEnd(text, begin, begin);
    if (tokens <= options_.size || at_ <= one) return Piece{begin, at_, tokens};
    // As much as would fit if all characters were alike.
    const auto fits = static_cast<size_t>(static_cast<double>(at_ - begin) *
                                          static_cast<double>(size) / static_cast<double>(tokens));
    at_ = CharacterEnd(text, begin, std::min(begin + fits, at_ - 1));
  }
}

// At a full stop or an empty line, and at the end of the section.
bool Chunker::EndsSentence(const Piece& word) const {
  const std::string_view rest = document_.substr(word.end, section_end_ - word.end);
  const size_t next = rest.find_first_not_of(kBlank);
  if (next == std::string_view::npos) return true;
  const std::string_view gap = rest.substr(0, next);
  if (gap.find('\n') != gap.rfind('\n')) return true;
  std::string_view text = TextOf(word);
  while (const size_t bytes = MarkAtEnd(text, kClosing)) text.remove_suffix(bytes);
  return MarkAtEnd(text, kFullStops) > 0 || MarkAtEnd(text, kWideFullStops) > 0;
}

void Chunker::FindPiece() {
  if (!pieces_.empty()) return;
  int64_t tokens = 0;
  while (const std::optional<Piece> word = NextWord()) {
    pieces_.push_back(*word);
    if (options_.by != ChunkOptions::By::kSentences) return;
    tokens += word->tokens;
    const bool is_end = EndsSentence(*word);
    // The words of a sentence that is too long for a passage stay by themselves.
    if (is_in_long_sentence_ || tokens > options_.size) {
      is_in_long_sentence_ = !is_end;
      return;
    }
    if (is_end) {
      pieces_ = {{pieces_.front().begin, word->end, tokens}};
      return;
    }
  }
}

void Chunker::Drop() {
  window_tokens_ -= window_.front().tokens;
  window_.pop_front();
}

std::optional<Chunk> Chunker::Next() {
  FindPiece();
  while (pieces_.empty()) {
    if (!NextSection()) return std::nullopt;
    window_.clear();
    window_tokens_ = 0;
    FindPiece();
  }
  // What is repeated makes room for what is new.
  while (!window_.empty() && window_tokens_ + pieces_.front().tokens > options_.size) Drop();
  for (; !pieces_.empty(); FindPiece()) {
    const Piece& piece = pieces_.front();
    if (!window_.empty() && window_tokens_ + piece.tokens > options_.size) break;
    window_tokens_ += piece.tokens;
    window_.push_back(piece);
    pieces_.pop_front();
  }
  const size_t begin = window_.front().begin;
  while (heading_ < headings_.size() && headings_[heading_].begin <= begin) ++heading_;
  Chunk chunk{std::string(document_.substr(begin, window_.back().end - begin)),
              heading_ == 0 ? "" : headings_[heading_ - 1].title};
  // The next one repeats what the overlap allows, but never all.
  Drop();
  while (window_tokens_ > options_.overlap) Drop();
  return chunk;
}

}  // namespace flowmesh::retrieval
