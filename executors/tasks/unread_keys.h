// A key of a spec that nobody reads is ignored and named once in the log (TASKS.md 1.4).
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/field.h"

namespace flowmesh::tasks {

// Says which keys of the map `block` are not among `read`, a list of names (std::string_view).
template <typename Names>
void WarnOfUnread(const Field& block, const Names& read,
                  const std::function<void(const std::string&)>& warn) {
  if (!block.present() || !block.json().is_object()) return;
  for (const auto& [key, value] : block.json().items()) {
    if (value.is_null()) continue;  // as good as absent
    if (std::find(read.begin(), read.end(), std::string_view(key)) != read.end()) continue;
    warn(absl::StrCat("ignored field ", block.path(), ".", key));
  }
}

// The same for names that stand where they are read.
inline void WarnOfUnread(const Field& block, std::initializer_list<std::string_view> read,
                         const std::function<void(const std::string&)>& warn) {
  WarnOfUnread<std::initializer_list<std::string_view>>(block, read, warn);
}

}  // namespace flowmesh::tasks
