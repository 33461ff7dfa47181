// The model's tokens by text and by id, without the added ones. Immutable after Build; thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/status.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

class Vocabulary {
 public:
  // `entries`: (text, id) in any order; ids may leave gaps. InvalidArgument, naming `path`: an id
  // that is negative or so large that the gaps outweigh the tokens.
  static absl::StatusOr<Vocabulary> Build(std::vector<std::pair<std::string, int64_t>> entries,
                                          std::string_view path);

  std::optional<TokenId> Find(std::string_view text) const;
  bool Has(TokenId id) const;
  // Empty for an unknown id.
  const std::string& Text(TokenId id) const;

  size_t token_count() const { return by_text_.size(); }  // distinct texts
  TokenId id_end() const { return static_cast<TokenId>(by_id_.size()); }

 private:
  // Texts stay where they are when a Vocabulary moves: the map's keys point at them.
  std::vector<std::pair<std::string, int64_t>> entries_;
  std::vector<int32_t> by_id_;  // place in entries_, -1 in a gap
  absl::flat_hash_map<absl::string_view, TokenId> by_text_;
};

}  // namespace flowmesh::text
