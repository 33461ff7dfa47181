// Parquet and Arrow files, read by Arrow's own library, which is opened when the first is needed.
#pragma once

#include <filesystem>
#include <string>

#include "common/status.h"
#include "executors/data/table.h"

namespace flowmesh::data {

// `is_parquet`: else an Arrow file (Feather version 2) or stream. Nested columns become maps and
// lists; dates, times and timestamps become ISO text, binary becomes text.
// FailedPrecondition when the reader is not installed. InvalidArgument names the file.
absl::StatusOr<Table> ReadArrow(const std::filesystem::path& path, bool is_parquet,
                                const std::string& name);

}  // namespace flowmesh::data
