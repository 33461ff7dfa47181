#include "executors/retrieval/chunker.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace flowmesh::retrieval {
namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";

// A part of the document that is not cut further.
struct Piece {
  size_t begin = 0, end = 0;  // bytes
  int64_t tokens = 0;
};

std::vector<Piece> Words(std::string_view text, size_t begin, size_t end,
                         const std::function<int64_t(std::string_view)>& count_tokens) {
  std::vector<Piece> words;
  text = text.substr(0, end);
  for (size_t at = text.find_first_not_of(kBlank, begin); at != std::string_view::npos;) {
    const size_t stop = std::min(text.find_first_of(kBlank, at), end);
    words.push_back({at, stop, count_tokens(text.substr(at, stop - at))});
    at = text.find_first_not_of(kBlank, stop);
  }
  return words;
}

bool EndsSentence(std::string_view word) {
  while (!word.empty() && (word.back() == '"' || word.back() == '\'' || word.back() == ')')) {
    word.remove_suffix(1);
  }
  return !word.empty() && (word.back() == '.' || word.back() == '!' || word.back() == '?');
}

// Words put together into sentences, which end at a full stop or an empty line. What has more than
// `most` tokens stays as words.
std::vector<Piece> Sentences(std::string_view text, const std::vector<Piece>& words, int64_t most) {
  std::vector<Piece> pieces;
  size_t first = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    tokens += words[i].tokens;
    const size_t next = i + 1 < words.size() ? words[i + 1].begin : words[i].end;
    const std::string_view gap = text.substr(words[i].end, next - words[i].end);
    const bool is_paragraph = gap.find('\n') != gap.rfind('\n');
    const std::string_view word = text.substr(words[i].begin, words[i].end - words[i].begin);
    if (i + 1 < words.size() && !is_paragraph && !EndsSentence(word)) continue;
    if (tokens > most) {
      pieces.insert(pieces.end(), words.begin() + first, words.begin() + i + 1);
    } else {
      pieces.push_back({words[first].begin, words[i].end, tokens});
    }
    first = i + 1;
    tokens = 0;
  }
  return pieces;
}

// Packs pieces of one section into as few passages as fit.
void Pack(std::string_view text, const std::vector<Piece>& pieces, const ChunkOptions& options,
          const std::function<std::string(size_t)>& heading_at, std::vector<Chunk>& out) {
  size_t first = 0;
  while (first < pieces.size()) {
    size_t last = first;  // behind the passage
    int64_t tokens = 0;
    while (last < pieces.size() &&
           (last == first || tokens + pieces[last].tokens <= options.size)) {
      tokens += pieces[last++].tokens;
    }
    const size_t begin = pieces[first].begin;
    out.push_back(
        {std::string(text.substr(begin, pieces[last - 1].end - begin)), heading_at(begin)});
    if (last == pieces.size()) return;
    // Back as far as the overlap allows, but always forward over all.
    size_t next = last;
    int64_t repeated = 0;
    while (next > first + 1 && repeated + pieces[next - 1].tokens <= options.overlap) {
      repeated += pieces[--next].tokens;
    }
    first = next;
  }
}

}  // namespace

std::vector<Chunk> ChunkText(std::string_view document, const std::vector<Heading>& headings,
                             const ChunkOptions& options,
                             const std::function<int64_t(std::string_view)>& count_tokens) {
  std::vector<Chunk> chunks;
  const auto heading_at = [&](size_t at) {
    const auto next =
        std::upper_bound(headings.begin(), headings.end(), at,
                         [](size_t place, const Heading& one) { return place < one.begin; });
    return next == headings.begin() ? "" : std::prev(next)->title;
  };
  const auto pack = [&](size_t begin, size_t end) {
    std::vector<Piece> pieces = Words(document, begin, end, count_tokens);
    if (options.by == ChunkOptions::By::kSentences) {
      pieces = Sentences(document, pieces, options.size);
    }
    Pack(document, pieces, options, heading_at, chunks);
  };
  size_t begin = 0;
  if (options.by == ChunkOptions::By::kHeadings) {
    for (const Heading& heading : headings) {
      pack(begin, heading.begin);
      begin = heading.begin;
    }
  }
  pack(begin, document.size());
  return chunks;
}

}  // namespace flowmesh::retrieval
