#include "executors/text/vocabulary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh::text {

absl::StatusOr<Vocabulary> Vocabulary::Build(std::vector<std::pair<std::string, int64_t>> entries,
                                             std::string_view path) {
  // A hostile id must not allocate gigabytes.
  const int64_t limit = static_cast<int64_t>(entries.size()) * 4 + 65536;
  int64_t last_id = -1;
  for (const auto& [text, id] : entries) {
    if (id < 0 || id >= limit) {
      return absl::InvalidArgumentError(absl::StrCat(ToAbsl(path), "[\"", text.substr(0, 100),
                                                     "\"]: expected a token id from 0 to ",
                                                     limit - 1, ", got ", id));
    }
    last_id = std::max(last_id, id);
  }
  Vocabulary made;
  made.entries_ = std::move(entries);
  made.by_id_.assign(static_cast<size_t>(last_id + 1), -1);
  made.by_text_.reserve(made.entries_.size());
  for (size_t i = 0; i < made.entries_.size(); ++i) {
    const auto& [text, id] = made.entries_[i];
    made.by_id_[static_cast<size_t>(id)] = static_cast<int32_t>(i);
    made.by_text_.insert_or_assign(ToAbsl(text), static_cast<TokenId>(id));
  }
  return made;
}

std::optional<TokenId> Vocabulary::Find(std::string_view text) const {
  const auto found = by_text_.find(ToAbsl(text));
  if (found == by_text_.end()) return std::nullopt;
  return found->second;
}

bool Vocabulary::Has(TokenId id) const {
  return id >= 0 && id < id_end() && by_id_[static_cast<size_t>(id)] >= 0;
}

const std::string& Vocabulary::Text(TokenId id) const {
  static const std::string empty;
  if (!Has(id)) return empty;
  return entries_[static_cast<size_t>(by_id_[static_cast<size_t>(id)])].first;
}

}  // namespace flowmesh::text
