// Rows of a data set in memory, with the places in files that they came from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::data {

struct Row {
  Json values;      // a map; a column that it lacks is null
  size_t file = 0;  // place in Table::files
  size_t line = 0;  // from 1; 0 in a file without lines
  size_t row = 0;   // from 1, within its file
};

// Value type. Columns stand in the order in which they were first seen.
struct Table {
  std::vector<std::string> columns;
  std::vector<Row> rows;
  std::vector<std::string> files;

  bool HasColumn(std::string_view name) const;
  // The value of a column; null when the row lacks it.
  const Json& At(size_t row, std::string_view column) const;
  // Where a row stands, for errors: `line 3 of pairs.jsonl`, `row 3 of pairs.parquet`, `row 3`.
  std::string Place(size_t row) const;
  // `question, answer`, or `none`.
  std::string ColumnNames() const;

  // Adds a map as a row of the newest file.
  void Add(Json values, size_t line);
  // Adds the rows of another table.
  void Append(Table other);

 private:
  void AddColumn(const std::string& name);
};

}  // namespace flowmesh::data
