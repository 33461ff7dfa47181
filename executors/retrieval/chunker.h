// Cuts a document into the passages that are embedded one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace flowmesh::retrieval {

struct ChunkOptions {
  // Where a passage may end: behind any word, behind a sentence, or, so that no passage reaches
  // into the next section, at a heading.
  enum class By { kTokens, kSentences, kHeadings };

  By by = By::kTokens;
  int64_t size = 200;    // tokens of a passage at most; one word may have more
  int64_t overlap = 20;  // tokens at most that a passage repeats of the one before; below `size`
};

// Where a section of a document begins.
struct Heading {
  size_t begin = 0;  // of its line, in bytes
  std::string title;
};

struct Chunk {
  std::string text;     // as it stands in the document
  std::string heading;  // the last one that begins no later; empty: none
};

// `headings`: in their order. `count_tokens`: of a word. Passages in the order of the document,
// none of them blank.
std::vector<Chunk> ChunkText(std::string_view document, const std::vector<Heading>& headings,
                             const ChunkOptions& options,
                             const std::function<int64_t(std::string_view)>& count_tokens);

}  // namespace flowmesh::retrieval
