// Cuts a document into the passages that are embedded one by one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flowmesh::retrieval {

struct ChunkOptions {
  // Where a passage may end: behind any word, behind a sentence, or, so that no passage reaches
  // into the next section, at a heading.
  enum class By { kTokens, kSentences, kHeadings };

  By by = By::kTokens;
  int64_t size = 200;    // tokens of a passage at most
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

// Gives the passages in the order of the document, none of them blank. Holds no more than a passage
// and a sentence at a time. Not thread-safe.
class Chunker {
 public:
  using CountTokens = std::function<int64_t(std::string_view word)>;

  // Borrows the document and its headings, which stand in their order.
  Chunker(std::string_view document, const std::vector<Heading>& headings,
          const ChunkOptions& options, CountTokens count_tokens);

  std::optional<Chunk> Next();  // nothing: that was all

 private:
  // A part of the document that is not cut further: a word, a part of one that is too long for a
  // passage, or a sentence.
  struct Piece {
    size_t begin = 0, end = 0;  // bytes
    int64_t tokens = 0;
  };

  bool NextSection();  // false: there is none
  std::optional<Piece> NextWord();
  bool EndsSentence(const Piece& word) const;
  // Makes pieces_ hold the next of the section, if there is one.
  void FindPiece();
  std::string_view TextOf(const Piece& piece) const;
  void Drop();  // the first piece of the window

  const std::string_view document_;
  const std::vector<Heading>& headings_;
  const ChunkOptions options_;
  const CountTokens count_tokens_;

  size_t next_section_ = 0;  // in headings_, where sections are cut
  size_t heading_ = 0;       // how many of headings_ begin no later than the passage
  size_t at_ = 0, section_end_ = 0;
  bool is_in_long_sentence_ = false;
  std::deque<Piece> pieces_;  // found, and in no passage yet
  std::deque<Piece> window_;  // of the passage, or what the next one repeats
  int64_t window_tokens_ = 0;
};

}  // namespace flowmesh::retrieval
