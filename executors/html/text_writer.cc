#include "executors/html/text_writer.h"

#include <algorithm>
#include <utility>

namespace flowmesh::html {
namespace {

constexpr std::string_view kSpace = " \t\r\n\f";

}  // namespace

void TextWriter::Pending() {
  if (!out_.empty() && newlines_ > 0) {
    out_.append(static_cast<size_t>(newlines_), '\n');
  } else if (!out_.empty() && space_ && !glued_) {
    out_ += ' ';
  }
  newlines_ = 0;
  space_ = glued_ = false;
}

void TextWriter::Text(std::string_view text, bool keep_space) {
  if (keep_space) {
    if (text.empty()) return;
    Pending();
    out_ += text;
    return;
  }
  while (!text.empty()) {
    const size_t begin = text.find_first_not_of(kSpace);
    if (begin != 0) space_ = true;
    if (begin == std::string_view::npos) return;
    const size_t end = std::min(text.find_first_of(kSpace, begin), text.size());
    Pending();
    out_ += text.substr(begin, end - begin);
    text.remove_prefix(end);
  }
}

void TextWriter::Mark(std::string_view mark, bool glue) {
  Pending();
  out_ += mark;
  glued_ = glue;
}

void TextWriter::Break(int newlines) {
  newlines_ = std::max(newlines_, newlines);
  glued_ = false;
}

}  // namespace flowmesh::html
