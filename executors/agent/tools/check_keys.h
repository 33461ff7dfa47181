// Whether a configuration's map holds only fields that somebody reads.
#pragma once

#include <initializer_list>
#include <string_view>

#include "common/field.h"

namespace flowmesh::agent {

// InvalidArgument for another key, naming those that are known, and for what is no map.
absl::Status CheckKeys(const Field& map, std::initializer_list<std::string_view> known);

}  // namespace flowmesh::agent
