// Files of rows (TASKS.md 2.6).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"
#include "executors/data/table.h"

namespace flowmesh::data {

enum class Format { kJsonl, kJson, kCsv, kTsv, kText, kParquet, kArrow };

// What a file's ending says, `.gz` aside; nothing for another ending. A `.json` may hold JSONL.
std::optional<Format> FormatOfName(std::string_view name);

// Reads a file, unpacking gzip. `name` is what it is called in errors and what its format is told
// by; with an ending that says nothing its content tells.
// InvalidArgument names the file and the line, row or byte of a mistake: expected, found. Others:
// the file cannot be read.
absl::StatusOr<Table> ReadTable(const std::filesystem::path& path, const std::string& name);

// The same for a file that is JSONL whatever its name.
absl::StatusOr<Table> ReadJsonlFile(const std::filesystem::path& path, const std::string& name);

// The text formats by themselves. `name` is for errors. A byte order mark is skipped.
absl::StatusOr<Table> ReadJsonl(std::string_view text, const std::string& name);
absl::StatusOr<Table> ReadJson(std::string_view text, const std::string& name);
absl::StatusOr<Table> ReadCsv(std::string_view text, char separator, const std::string& name);
absl::StatusOr<Table> ReadText(std::string_view text, const std::string& name);

}  // namespace flowmesh::data
