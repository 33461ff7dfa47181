// CSV and TSV: RFC 4180 with every cell a string.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/read_table.h"

namespace flowmesh::data {
namespace {

// Splits a text into records, one at a time. A record ends with LF or CRLF outside of quotes.
class CsvReader {
 public:
  CsvReader(std::string_view text, char separator) : text_(text), separator_(separator) {}

  // The next record's cells; nothing at the end. Blank lines are skipped.
  absl::StatusOr<std::optional<std::vector<std::string>>> Next() {
    while (SkipLineEnd()) {
    }
    if (at_ == text_.size()) return std::nullopt;
    record_line_ = line_;
    std::vector<std::string> cells;
    while (true) {
      ASSIGN_OR_RETURN(std::string cell, NextCell());
      cells.push_back(std::move(cell));
      if (at_ == text_.size() || SkipLineEnd()) return cells;
      ++at_;  // a separator
    }
  }

  // Where the last record began.
  size_t record_line() const { return record_line_; }

 private:
  bool SkipLineEnd() {
    const std::string_view rest = text_.substr(at_);
    const size_t size = rest.substr(0, 2) == "\r\n" ? 2 : rest.substr(0, 1) == "\n" ? 1 : 0;
    at_ += size;
    line_ += size > 0;
    return size > 0;
  }

  bool AtCellEnd() const {
    if (at_ == text_.size()) return true;
    const char c = text_[at_];
    return c == separator_ || c == '\n' || text_.substr(at_, 2) == "\r\n";
  }

  absl::StatusOr<std::string> NextCell() {
    if (at_ < text_.size() && text_[at_] == '"') return QuotedCell();
    const size_t begin = at_;
    while (!AtCellEnd()) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  absl::StatusOr<std::string> QuotedCell() {
    const size_t opened = line_;
    std::string cell;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        ++at_;
        if (at_ == text_.size() || text_[at_] != '"') return EndQuoted(std::move(cell), opened);
      }
      line_ += text_[at_] == '\n';
      cell += text_[at_];
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "line ", opened, ": expected a closing quote, got the end of the file: is it cut off?"));
  }

  absl::StatusOr<std::string> EndQuoted(std::string cell, size_t opened) const {
    if (AtCellEnd()) return cell;
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line_, ": expected a separator or the line's end after the quotes ",
                     "opened in line ", opened, ", got other text"));
  }

  const std::string_view text_;
  const char separator_;
  size_t at_ = 0;
  size_t line_ = 1, record_line_ = 0;
};

absl::Status CheckHeader(const std::vector<std::string>& header) {
  for (size_t i = 0; i < header.size(); ++i) {
    if (std::find(header.begin(), header.begin() + i, header[i]) != header.begin() + i) {
      return absl::InvalidArgumentError(
          absl::StrCat("line 1: column '", header[i], "' stands twice in the header"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Table> ReadCsv(std::string_view text, char separator, const std::string& name) {
  CsvReader reader(text, separator);
  Table table{.files = {name}};
  auto header = reader.Next();
  if (!header.ok()) return Annotate(header.status(), name);
  if (!*header) return table;
  table.columns = **header;
  RETURN_IF_ERROR(Annotate(CheckHeader(table.columns), name));
  while (true) {
    auto cells = reader.Next();
    if (!cells.ok()) return Annotate(cells.status(), name);
    if (!*cells) return table;
    if ((*cells)->size() != table.columns.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": line ", reader.record_line(), ": expected ", table.columns.size(),
                       " cells as in the header, got ", (*cells)->size()));
    }
    Json values = Json::object();
    for (size_t i = 0; i < table.columns.size(); ++i) {
      std::string& cell = (**cells)[i];
      values[table.columns[i]] = cell.empty() ? Json() : Json(std::move(cell));
    }
    table.Add(std::move(values), reader.record_line());
  }
}

}  // namespace flowmesh::data
