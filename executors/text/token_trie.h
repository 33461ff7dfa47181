// A set of strings that is searched for in running text: the longest match at a place, or all.
// Immutable; may be read from any thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace flowmesh::text {

class TokenTrie {
 public:
  using Entries = std::vector<std::pair<std::string_view, int32_t>>;

  TokenTrie() : TokenTrie(Entries()) {}
  // Strings with their values, which are not negative. The strings need not outlive the call. The
  // first of equal strings keeps its value. Empty strings are ignored.
  explicit TokenTrie(Entries entries);

  bool empty() const { return nodes_.size() == 2; }

  struct Match {
    size_t begin, end;
    int32_t value;
  };

  // The leftmost match that begins at `from` or later, the longest one there.
  std::optional<Match> FindLongest(std::string_view text, size_t from) const;

  // Calls `found(end, value)` for every string that `text` has at `begin`, the shortest first.
  template <typename Callback>
  void ForEachMatchAt(std::string_view text, size_t begin, Callback found) const {
    int32_t node = roots_[static_cast<unsigned char>(text[begin])];
    for (size_t end = begin + 1; node != kNone; ++end) {
      if (nodes_[node].value != kNone) found(end, nodes_[node].value);
      if (end >= text.size()) break;
      node = Child(node, text[end]);
    }
  }

  // Calls `found(value)` for every occurrence of every string, overlapping ones too.
  template <typename Callback>
  void ForEachMatch(std::string_view text, Callback found) const {
    for (size_t begin = 0; begin < text.size(); ++begin) {
      ForEachMatchAt(text, begin, [&](size_t, int32_t value) { found(value); });
    }
  }

 private:
  static constexpr int32_t kNone = -1;

  // Level by level: the children of a node are the nodes from its first child to that of the next.
  struct Node {
    int32_t first_child;
    int32_t value = kNone;
  };

  int32_t Child(int32_t node, char byte) const {
    const int32_t first = nodes_[node].first_child, end = nodes_[node + 1].first_child;
    if (first == end) return kNone;
    const void* found = std::memchr(&bytes_[first], byte, static_cast<size_t>(end - first));
    if (found == nullptr) return kNone;
    return static_cast<int32_t>(static_cast<const char*>(found) - bytes_.data());
  }

  std::vector<Node> nodes_;                                        // nodes_[0] is the root
  std::vector<char> bytes_;                                        // that lead to each node
  std::vector<int32_t> roots_ = std::vector<int32_t>(256, kNone);  // the root's children by byte
};

}  // namespace flowmesh::text
