#include "executors/text/merges.h"

#include <algorithm>

namespace flowmesh::text {
namespace {

// A symbol in a doubly linked list inside a vector.
struct Node {
  Symbol symbol;
  int previous, next;  // -1 at the ends
  bool dead = false;   // merged into its left neighbour
};

struct Candidate {
  uint32_t rank;
  int left;  // node whose merge with its right neighbour this is
  Symbol result;
};

// std::push_heap keeps the greatest on top: the greatest is the lowest rank, then the leftmost.
bool Worse(const Candidate& a, const Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
}

}  // namespace

void MergeTable::Apply(std::vector<Symbol>& symbols) const {
  if (symbols.size() < 2) return;
  const int count = static_cast<int>(symbols.size());
  std::vector<Node> nodes;
  nodes.reserve(symbols.size());
  for (int i = 0; i < count; ++i) {
    nodes.push_back({symbols[i], i - 1, i + 1 < count ? i + 1 : -1});
  }
  std::vector<Candidate> heap;
  const auto consider = [&](int left) {
    if (left < 0 || nodes[left].next < 0) return false;
    const Merge* merge = Find(nodes[left].symbol, nodes[nodes[left].next].symbol);
    if (merge == nullptr) return false;
    heap.push_back({merge->rank, left, merge->result});
    return true;
  };
  const auto push = [&](int left) {
    if (consider(left)) std::push_heap(heap.begin(), heap.end(), Worse);
  };
  for (int i = 0; i + 1 < count; ++i) consider(i);
  std::make_heap(heap.begin(), heap.end(), Worse);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), Worse);
    const Candidate best = heap.back();
    heap.pop_back();
    Node& left = nodes[best.left];
    if (left.dead || left.next < 0) continue;
    Node& right = nodes[left.next];
    // The pair may have changed since the candidate was queued.
    const Merge* merge = Find(left.symbol, right.symbol);
    if (merge == nullptr || merge->result != best.result) continue;
    left.symbol = best.result;
    right.dead = true;
    left.next = right.next;
    if (left.next >= 0) nodes[left.next].previous = best.left;
    push(left.previous);
    push(best.left);
  }

  symbols.clear();
  for (int i = 0; i >= 0; i = nodes[i].next) symbols.push_back(nodes[i].symbol);
}

}  // namespace flowmesh::text
