// The heart of byte-pair encoding: a table of ranked merges and the loop that applies them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace flowmesh::text {

// Symbols are token ids, or ids above them that a tokenizer gives to strings without a token.
using Symbol = uint32_t;

// Built once, then read from any thread.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    Symbol result;
  };

  void Reserve(size_t count) { merges_.reserve(count); }
  // The later of two merges of one pair counts.
  void Set(Symbol left, Symbol right, Merge merge) { merges_[Key(left, right)] = merge; }
  // The earlier counts.
  void Add(Symbol left, Symbol right, Merge merge) { merges_.emplace(Key(left, right), merge); }
  // Null when the pair does not merge.
  const Merge* Find(Symbol left, Symbol right) const {
    const auto found = merges_.find(Key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

  // Merges pairs of neighbours in `symbols`, lowest rank first and leftmost among equals, until no
  // pair merges. O(n log n).
  void Apply(std::vector<Symbol>& symbols) const;

 private:
  static uint64_t Key(Symbol left, Symbol right) { return uint64_t{left} << 32 | right; }

  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace flowmesh::text
