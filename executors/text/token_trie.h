// A set of strings that is searched for in running text: the longest match at a place, or all.
// Built once, then read from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace flowmesh::text {

class TokenTrie {
 public:
  TokenTrie() { nodes_.push_back({}); }

  // The first of equal strings keeps its value. Empty strings are ignored.
  void Insert(std::string_view text, int32_t value);
  bool empty() const { return nodes_.size() == 1; }

  struct Match {
    size_t begin, end;
    int32_t value;
  };

  // The leftmost match that begins at `from` or later, the longest one there.
  std::optional<Match> FindLongest(std::string_view text, size_t from) const;

  // Calls `found(value)` for every occurrence of every string, overlapping ones too.
  template <typename Callback>
  void ForEachMatch(std::string_view text, Callback found) const {
    for (size_t begin = 0; begin < text.size(); ++begin) {
      int32_t node = roots_[static_cast<unsigned char>(text[begin])];
      for (size_t pos = begin + 1; node != kNone; ++pos) {
        if (nodes_[node].value != kNone) found(nodes_[node].value);
        if (pos >= text.size()) break;
        node = Child(node, text[pos]);
      }
    }
  }

 private:
  static constexpr int32_t kNone = -1;

  struct Node {
    int32_t value = kNone;
    int32_t first_child = kNone;
    int32_t next_sibling = kNone;
    char byte = 0;
  };

  int32_t Child(int32_t node, char byte) const {
    int32_t child = nodes_[node].first_child;
    while (child != kNone && nodes_[child].byte != byte) child = nodes_[child].next_sibling;
    return child;
  }

  std::vector<Node> nodes_;                                        // nodes_[0] is the root
  std::vector<int32_t> roots_ = std::vector<int32_t>(256, kNone);  // the root's children by byte
};

}  // namespace flowmesh::text
