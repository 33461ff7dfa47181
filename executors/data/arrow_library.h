// What stands between our programs and libflowmesh_arrow.so, which is linked to Arrow's libraries
// and opened at run time: plain types and one function.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"

namespace flowmesh::data {

inline constexpr char kArrowLibrary[] = "libflowmesh_arrow.so";
inline constexpr char kReadArrowSymbol[] = "flowmesh_read_arrow";

// Appends the file's columns and rows (maps). Returns false with the reason in `error`. Throws
// nothing.
using ReadArrowFunction = bool (*)(const std::string& path, bool is_parquet,
                                   std::vector<std::string>& columns, std::vector<Json>& rows,
                                   std::string& error);

}  // namespace flowmesh::data
