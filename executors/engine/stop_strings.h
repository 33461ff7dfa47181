// Finds the stop strings of a request in its growing text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace flowmesh::engine {

// One per sequence; not thread-safe.
class StoppableText {
 public:
  // Empty stop strings are ignored.
  explicit StoppableText(const std::vector<std::string>& stop);

  // Adds text. True when a stop string is in it now, possibly begun in earlier pieces: the text is
  // cut before its earliest occurrence. Not to be called again then.
  bool Append(std::string_view piece);

  const std::string& text() const { return text_; }

 private:
  std::vector<std::string> stop_;
  size_t longest_ = 0;
  std::string text_;
};

}  // namespace flowmesh::engine
