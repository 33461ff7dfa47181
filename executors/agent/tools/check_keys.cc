#include "executors/agent/tools/check_keys.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::agent {

absl::Status CheckKeys(const Field& map, std::initializer_list<std::string_view> known) {
  RETURN_IF_ERROR(map.CheckMap());
  if (!map.present()) return absl::OkStatus();
  for (const auto& [key, value] : map.json().items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::vector<std::string> names(known.begin(), known.end());
    return absl::InvalidArgumentError(
        absl::StrCat(map.path(), map.path().empty() ? "" : ".", key, ": unknown field; ",
                     names.empty() ? "there are none"
                                   : absl::StrCat("known are: ", absl::StrJoin(names, ", "))));
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::agent
