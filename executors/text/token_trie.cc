#include "executors/text/token_trie.h"

#include <algorithm>

namespace flowmesh::text {

TokenTrie::TokenTrie(Entries entries) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // The entries below each node of the level that is being laid out. They share `depth` bytes;
  // those that are no longer end at the node and come first.
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> level = {{0, entries.size()}}, next;
  bytes_.push_back(0);
  for (size_t depth = 0; !level.empty(); ++depth) {
    next.clear();
    for (auto [begin, end] : level) {
      Node node{static_cast<int32_t>(bytes_.size())};
      for (; begin < end && entries[begin].first.size() == depth; ++begin) {
        if (depth > 0 && node.value == kNone) node.value = entries[begin].second;
      }
      nodes_.push_back(node);
      while (begin < end) {
        const char byte = entries[begin].first[depth];
        const size_t first = begin;
        while (begin < end && entries[begin].first[depth] == byte) ++begin;
        if (depth == 0) {
          roots_[static_cast<unsigned char>(byte)] = static_cast<int32_t>(bytes_.size());
        }
        bytes_.push_back(byte);
        next.push_back({first, begin});
      }
    }
    std::swap(level, next);
  }
  nodes_.push_back({static_cast<int32_t>(bytes_.size())});  // ends the children of the last node
}

std::optional<TokenTrie::Match> TokenTrie::FindLongest(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    std::optional<Match> longest;
    ForEachMatchAt(text, begin, [&](size_t end, int32_t value) {
      longest = Match{begin, end, value};
    });
    if (longest.has_value()) return longest;
  }
  return std::nullopt;
}

}  // namespace flowmesh::text
