#include "executors/engine/stop_strings.h"

#include <algorithm>

namespace flowmesh::engine {

StoppableText::StoppableText(const std::vector<std::string>& stop) {
  for (const std::string& s : stop) {
    if (s.empty()) continue;
    stop_.push_back(s);
    longest_ = std::max(longest_, s.size());
  }
}

bool StoppableText::Append(std::string_view piece) {
  const size_t old_size = text_.size();
  text_ += piece;
  if (stop_.empty()) return false;
  // An occurrence that ends in the new piece begins at most longest_ - 1 bytes before it.
  const size_t from = old_size - std::min(old_size, longest_ - 1);
  size_t earliest = std::string::npos;
  for (const std::string& s : stop_) earliest = std::min(earliest, text_.find(s, from));
  if (earliest == std::string::npos) return false;
  text_.resize(earliest);
  return true;
}

}  // namespace flowmesh::engine
