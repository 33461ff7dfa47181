#include "executors/data/read_table.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/fetch/gzip_source.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/data/arrow_reader.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxTextBytes = uint64_t{8} << 30;  // unpacked; a bound against gzip bombs

// Cuts the next line off `text`, without its LF and a CR before that.
std::string_view CutLine(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::string_view WithoutBom(std::string_view text) {
  return text.substr(0, 3) == "\xef\xbb\xbf" ? text.substr(3) : text;
}

absl::Status CheckUtf8(std::string_view text, const std::string& name) {
  if (IsValidUtf8(text)) return absl::OkStatus();
  for (size_t number = 1; !text.empty(); ++number) {
    if (!IsValidUtf8(CutLine(text))) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": line ", number, ": expected UTF-8, got other bytes"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Unpack(const fs::path& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GzipSource> source, GzipSource::Open(path));
  std::string text;
  while (true) {
    ASSIGN_OR_RETURN(const std::string_view piece, source->Read());
    if (piece.empty()) return text;
    if (text.size() + piece.size() > kMaxTextBytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("larger than ", kMaxTextBytes, " bytes unpacked"));
    }
    text += piece;
  }
}

absl::StatusOr<std::string> ReadWhole(const fs::path& path, const std::string& name) {
  absl::StatusOr<std::string> text;
  if (GzipSource::IsGzip(path)) {
    text = Unpack(path);
  } else if (absl::EndsWith(ToLower(name), ".gz")) {
    text = absl::InvalidArgumentError("expected gzip, got other content");
  } else {
    text = ReadFile(path, kMaxTextBytes);
  }
  return text.ok() ? std::move(text) : Annotate(text.status(), name);
}

// Whether a JSON text whose first character is `{` is one object a line.
bool IsJsonLines(std::string_view text) {
  text = Trim(WithoutBom(text));
  if (text.empty() || text[0] != '{') return false;
  const std::string_view first = CutLine(text);
  if (Trim(text).empty()) return false;
  return Json::accept(first.begin(), first.end());
}

// For a name that does not tell.
Format FormatOfContent(std::string_view text) {
  const std::string_view trimmed = Trim(WithoutBom(text));
  if (text.substr(0, 4) == "PAR1") return Format::kParquet;
  if (text.substr(0, 6) == "ARROW1") return Format::kArrow;
  return !trimmed.empty() && (trimmed[0] == '[' || trimmed[0] == '{') ? Format::kJson
                                                                      : Format::kText;
}

// The rows of a JSON document: an array, or the only value of an object when that is one.
const Json* RowsOf(const Json& document) {
  if (document.is_array()) return &document;
  if (document.is_object() && document.size() == 1 && document.front().is_array()) {
    return &document.front();
  }
  return nullptr;
}

// The first bytes of a file, which tell Parquet and Arrow from text.
std::string Beginning(const fs::path& path) {
  std::string bytes(6, '\0');
  FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return "";
  bytes.resize(std::fread(bytes.data(), 1, bytes.size(), file));
  std::fclose(file);
  return bytes;
}

}  // namespace

std::optional<Format> FormatOfName(std::string_view name) {
  const std::string lower = ToLower(name);
  absl::string_view rest = lower;
  const bool packed = absl::ConsumeSuffix(&rest, ".gz");
  if (absl::EndsWith(rest, ".jsonl") || absl::EndsWith(rest, ".ndjson")) return Format::kJsonl;
  if (absl::EndsWith(rest, ".json")) return Format::kJson;
  if (absl::EndsWith(rest, ".csv")) return Format::kCsv;
  if (absl::EndsWith(rest, ".tsv")) return Format::kTsv;
  if (absl::EndsWith(rest, ".txt")) return Format::kText;
  if (packed) return std::nullopt;
  if (absl::EndsWith(rest, ".parquet")) return Format::kParquet;
  if (absl::EndsWith(rest, ".arrow") || absl::EndsWith(rest, ".feather")) return Format::kArrow;
  return std::nullopt;
}

absl::StatusOr<Table> ReadTable(const fs::path& path, const std::string& name) {
  std::optional<Format> format = FormatOfName(name);
  const bool is_packed = GzipSource::IsGzip(path);
  if (!format && !is_packed) {
    const Format found = FormatOfContent(Beginning(path));
    if (found == Format::kParquet || found == Format::kArrow) format = found;
  }
  if (format == Format::kParquet || format == Format::kArrow) {
    return ReadArrow(path, *format == Format::kParquet, name);
  }
  ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, name));
  if (!format) format = FormatOfContent(text);
  switch (*format) {
    case Format::kJsonl:
      return ReadJsonl(text, name);
    case Format::kJson:
      return IsJsonLines(text) ? ReadJsonl(text, name) : ReadJson(text, name);
    case Format::kCsv:
    case Format::kTsv:
      RETURN_IF_ERROR(CheckUtf8(text, name));
      return ReadCsv(WithoutBom(text), *format == Format::kCsv ? ',' : '\t', name);
    case Format::kText:
      RETURN_IF_ERROR(CheckUtf8(text, name));
      return ReadText(text, name);
    case Format::kParquet:
    case Format::kArrow:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat(name, ": a Parquet or Arrow file under gzip"));
}

absl::StatusOr<Table> ReadJsonlFile(const fs::path& path, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string text, ReadWhole(path, name));
  return ReadJsonl(text, name);
}

absl::StatusOr<Table> ReadJsonl(std::string_view text, const std::string& name) {
  text = WithoutBom(text);
  Table table{.files = {name}};
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = CutLine(text);
    if (Trim(line).empty()) continue;
    const std::string where = absl::StrCat(name, ": line ", number);
    absl::StatusOr<Json> value = ParseJson(line);
    if (!value.ok()) {
      // The parser sees one line only: its "line 1" would mislead.
      return absl::Status(
          value.status().code(),
          absl::StrCat(where, ": ",
                       absl::StrReplaceAll(value.status().message(), {{"line 1, ", ""}})));
    }
    if (!value->is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": expected a map, got ", DescribeJson(*value)));
    }
    table.Add(*std::move(value), number);
  }
  return table;
}

absl::StatusOr<Table> ReadJson(std::string_view text, const std::string& name) {
  absl::StatusOr<Json> document = ParseJson(WithoutBom(text));
  if (!document.ok()) return Annotate(document.status(), name);
  const Json* rows = RowsOf(*document);
  if (rows == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        name, ": expected a list of maps, or a map with one such list in it and nothing else, got ",
        document->is_object() ? "another map" : DescribeJson(*document)));
  }
  Table table{.files = {name}};
  for (const Json& row : *rows) {
    if (!row.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": row ", table.rows.size() + 1,
                                                     ": expected a map, got ", DescribeJson(row)));
    }
    table.Add(row, 0);
  }
  return table;
}

absl::StatusOr<Table> ReadText(std::string_view text, const std::string& name) {
  text = WithoutBom(text);
  Table table{.columns = {"text"}, .files = {name}};
  for (size_t number = 1; !text.empty(); ++number) {
    table.Add({{"text", std::string(CutLine(text))}}, number);
  }
  return table;
}

}  // namespace flowmesh::data
