#include "executors/data/table.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::data {

bool Table::HasColumn(std::string_view name) const {
  return std::find(columns.begin(), columns.end(), name) != columns.end();
}

const Json& Table::At(size_t row, std::string_view column) const {
  static const Json null;
  const Json& values = rows[row].values;
  const auto it = values.find(std::string(column));
  return it == values.end() ? null : *it;
}

std::string Table::Place(size_t row) const {
  const Row& at = rows[row];
  std::string text = at.line > 0 ? absl::StrCat("line ", at.line) : absl::StrCat("row ", at.row);
  if (at.file < files.size()) absl::StrAppend(&text, " of ", files[at.file]);
  return text;
}

std::string Table::ColumnNames() const {
  return columns.empty() ? "none" : absl::StrJoin(columns, ", ");
}

void Table::AddColumn(const std::string& name) {
  if (!HasColumn(name)) columns.push_back(name);
}

void Table::Add(Json values, size_t line) {
  // Most rows have the columns of the one before, in the same order.
  size_t place = 0;
  for (const auto& [key, value] : values.items()) {
    if (place >= columns.size() || columns[place] != key) AddColumn(key);
    ++place;
  }
  const size_t file = files.empty() ? 0 : files.size() - 1;
  const bool is_first = rows.empty() || rows.back().file != file;
  rows.push_back({.values = std::move(values),
                  .file = file,
                  .line = line,
                  .row = is_first ? 1 : rows.back().row + 1});
}

void Table::Append(Table other) {
  for (const std::string& column : other.columns) AddColumn(column);
  for (Row& row : other.rows) row.file += files.size();
  std::move(other.files.begin(), other.files.end(), std::back_inserter(files));
  std::move(other.rows.begin(), other.rows.end(), std::back_inserter(rows));
}

}  // namespace flowmesh::data
