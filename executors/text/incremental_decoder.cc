#include <algorithm>

#include "executors/text/tokenizer.h"

namespace flowmesh::text {
namespace {

constexpr std::string_view kReplacement = "\uFFFD";

// The context: at least this many of the prompt's last tokens, and at most that many.
constexpr size_t kContextTokens = 6;
constexpr size_t kMostContextTokens = 64;
// No character takes more tokens than this: text still unfinished then is invalid.
constexpr size_t kMostPendingTokens = 16;

// `text` without the U+FFFD at its end, which may be characters whose last bytes are still to come.
std::string_view WithoutUnfinished(std::string_view text) {
  while (text.ends_with(kReplacement)) text.remove_suffix(kReplacement.size());
  return text;
}

}  // namespace

IncrementalDecoder::IncrementalDecoder(const Tokenizer* tokenizer,
                                       const std::vector<TokenId>& prompt_ids)
    : tokenizer_(tokenizer) {
  // The shortest tail that has text, and no half character in it.
  const size_t most = std::min(prompt_ids.size(), kMostContextTokens);
  for (size_t count = std::min(most, kContextTokens);; ++count) {
    ids_.assign(prompt_ids.end() - static_cast<ptrdiff_t>(count), prompt_ids.end());
    const std::string text = Decode(0, ids_.size());
    if (count == most || (!text.empty() && text.find(kReplacement) == std::string::npos)) break;
  }
  read_begin_ = ids_.size();
}

std::string IncrementalDecoder::Decode(size_t begin, size_t end) const {
  return tokenizer_->Decode(
      {ids_.begin() + static_cast<ptrdiff_t>(begin), ids_.begin() + static_cast<ptrdiff_t>(end)},
      /*skip_special_tokens=*/true);
}

std::string IncrementalDecoder::Append(TokenId id) {
  if (tokenizer_->IsSpecial(id)) return "";
  ids_.push_back(id);
  const std::string context = Decode(0, read_begin_);
  std::string text = Decode(0, ids_.size());
  if (text.starts_with(context)) {
    text.erase(0, context.size());
  } else {
    // The new bytes made the run of byte tokens before them invalid: they stand alone.
    text = Decode(read_begin_, ids_.size());
  }
  std::string_view finished = WithoutUnfinished(text);
  const bool overdue = ids_.size() - read_begin_ >= kMostPendingTokens;
  if (overdue) finished = text;
  std::string out;
  if (finished.size() > emitted_) out = finished.substr(emitted_);
  emitted_ += out.size();
  if (overdue || (!text.empty() && finished.size() == text.size())) {
    // What was pending becomes the context of what follows.
    if (!text.empty()) {
      ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(read_begin_));
    } else {
      ids_.resize(read_begin_);
    }
    read_begin_ = ids_.size();
    emitted_ = 0;
  }
  return out;
}

}  // namespace flowmesh::text
