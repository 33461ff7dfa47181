// Puts text together as a browser lays it out: runs of white space are one space, blocks stand
// apart by an empty line.
#pragma once

#include <string>
#include <string_view>

namespace flowmesh::html {

// Not thread-safe.
class TextWriter {
 public:
  // Text as it stands in the page. `keep_space`: as in <pre>.
  void Text(std::string_view text, bool keep_space);
  // What is no text of the page: a bullet, a link's brackets. `glue`: no white space is added after
  // it.
  void Mark(std::string_view mark, bool glue = false);
  // The next text begins at least `newlines` newlines further down.
  void Break(int newlines);

  std::string_view text() const { return out_; }  // so far
  std::string Take() { return std::move(out_); }

 private:
  void Pending();  // writes the white space that is due

  std::string out_;
  int newlines_ = 0;
  bool space_ = false;
  bool glued_ = false;
};

}  // namespace flowmesh::html
