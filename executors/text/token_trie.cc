#include "executors/text/token_trie.h"

namespace flowmesh::text {

void TokenTrie::Insert(std::string_view text, int32_t value) {
  if (text.empty()) return;
  int32_t node = 0;
  for (const char byte : text) {
    int32_t child = node == 0 ? roots_[static_cast<unsigned char>(byte)] : Child(node, byte);
    if (child == kNone) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({kNone, kNone, nodes_[node].first_child, byte});
      nodes_[node].first_child = child;
      if (node == 0) roots_[static_cast<unsigned char>(byte)] = child;
    }
    node = child;
  }
  if (nodes_[node].value == kNone) nodes_[node].value = value;
}

std::optional<TokenTrie::Match> TokenTrie::FindLongest(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    std::optional<Match> longest;
    int32_t node = roots_[static_cast<unsigned char>(text[begin])];
    for (size_t pos = begin + 1; node != kNone; ++pos) {
      if (nodes_[node].value != kNone) longest = Match{begin, pos, nodes_[node].value};
      if (pos >= text.size()) break;
      node = Child(node, text[pos]);
    }
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

}  // namespace flowmesh::text
