// A regular expression in Oniguruma's Ruby syntax over UTF-8, the engine of HF tokenizers, with the
// reference's \p{L} and \p{N}. Immutable; one object may be searched from many threads.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "common/status.h"

struct re_pattern_buffer;

namespace flowmesh::text {

// A part of a text: bytes [begin, end).
struct Span {
  size_t begin, end;
  bool match;  // whether the pattern matched here
};

class Regex {
 public:
  // InvalidArgument: Oniguruma does not accept `pattern`, with its reason.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  // Non-overlapping matches from left to right and the stretches between them: together they cover
  // `text` (valid UTF-8), in order. An empty text gives one empty stretch.
  std::vector<Span> FindSpans(std::string_view text) const;

 private:
  struct Free {
    void operator()(re_pattern_buffer* regex) const;
  };
  explicit Regex(re_pattern_buffer* regex) : regex_(regex) {}

  std::unique_ptr<re_pattern_buffer, Free> regex_;
};

// How GPT-2 cuts text into words.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// `literal` with every character that means something in a pattern escaped.
std::string EscapeRegex(std::string_view literal);

}  // namespace flowmesh::text
