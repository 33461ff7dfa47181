#include "executors/retrieval/documents.h"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-page.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/data/read_table.h"
#include "executors/html/html_text.h"
#include "executors/retrieval/markdown.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = 512u << 20;  // of a file that is not of rows
constexpr size_t kMostPdfText = 256u << 20;  // bytes: a page is packed to a fraction of its text

enum class Kind { kNone, kText, kMarkdown, kHtml, kPdf, kRows };

Kind KindOf(const fs::path& path) {
  const std::string ending = ToLower(path.extension().string());
  if (ending == ".txt" || ending == ".text") return Kind::kText;
  if (ending == ".md" || ending == ".markdown") return Kind::kMarkdown;
  if (ending == ".html" || ending == ".htm") return Kind::kHtml;
  if (ending == ".pdf") return Kind::kPdf;
  return data::FormatOfName(path.string()) ? Kind::kRows : Kind::kNone;
}

absl::StatusOr<Document> ReadPdf(const std::string& bytes,
                                 const std::function<bool()>& is_stopped) {
  static const bool is_quiet [[maybe_unused]] = [] {
    poppler::set_debug_error_function([](const std::string&, void*) {}, nullptr);
    return true;
  }();
  if (bytes.size() > static_cast<size_t>(std::numeric_limits<int>::max())) {
    return absl::ResourceExhaustedError("too large for a PDF");
  }
  const std::unique_ptr<poppler::document> pdf(
      poppler::document::load_from_raw_data(bytes.data(), static_cast<int>(bytes.size())));
  if (pdf == nullptr) return absl::InvalidArgumentError("expected a PDF, got something else");
  if (pdf->is_locked()) return absl::InvalidArgumentError("the PDF wants a password");
  Document document;
  for (int i = 0; i < pdf->pages(); ++i) {
    const std::unique_ptr<poppler::page> page(pdf->create_page(i));
    if (page == nullptr) continue;
    if (is_stopped && is_stopped()) return absl::CancelledError("stopped");
    if (document.text.size() > kMostPdfText) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the PDF has more than ", kMostPdfText >> 20, " MiB of text"));
    }
    const poppler::byte_array text = page->text().to_utf8();
    // Each page ends with a form feed.
    absl::StrAppend(&document.text, document.text.empty() ? "" : "\n\n",
                    absl::StripTrailingAsciiWhitespace({text.data(), text.size()}));
  }
  const poppler::byte_array title = pdf->get_title().to_utf8();
  if (!title.empty()) document.metadata["title"] = std::string(title.data(), title.size());
  return document;
}

absl::StatusOr<std::vector<Document>> ReadRows(const fs::path& path,
                                               const std::string& text_column) {
  ASSIGN_OR_RETURN(const data::Table table, data::ReadTable(path, path.string()));
  if (!table.HasColumn(text_column)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": column '", text_column,
                     "' not found; columns are: ", table.ColumnNames()));
  }
  std::vector<Document> documents;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    Document document{.text = JsonToText(table.At(i, text_column))};
    for (const std::string& column : table.columns) {
      if (column != text_column) document.metadata[column] = table.At(i, column);
    }
    document.metadata["row"] = i + 1;
    documents.push_back(std::move(document));
  }
  return documents;
}

absl::StatusOr<Document> ReadOne(Kind kind, std::string bytes,
                                 const std::function<bool()>& is_stopped) {
  if (kind == Kind::kPdf) return ReadPdf(bytes, is_stopped);
  if (!IsValidUtf8(bytes)) return absl::InvalidArgumentError("expected text in UTF-8");
  if (kind != Kind::kHtml && kind != Kind::kMarkdown) return Document{.text = std::move(bytes)};
  Document document;
  std::string title;
  if (kind == Kind::kMarkdown) {
    MarkdownText markdown = ReadMarkdown(bytes);
    document.text = std::move(markdown.text);
    document.headings = std::move(markdown.headings);
    title = std::move(markdown.title);
  } else {
    ASSIGN_OR_RETURN(html::Page page, html::ReadHtml(bytes));
    document.text = std::move(page.text);
    for (html::Heading& heading : page.headings) {
      document.headings.push_back({heading.begin, std::move(heading.title)});
    }
    title = std::move(page.title);
  }
  if (!title.empty()) document.metadata["title"] = std::move(title);
  return document;
}

}  // namespace

absl::StatusOr<Document> ReadDocument(std::string content, const std::string& ending,
                                      const std::function<bool()>& is_stopped) {
  return ReadOne(KindOf("page" + ending), std::move(content), is_stopped);
}

bool IsDocument(const fs::path& path) { return KindOf(path) != Kind::kNone; }

absl::StatusOr<std::vector<Document>> ReadDocuments(const fs::path& path,
                                                    const std::string& text_column,
                                                    const std::function<bool()>& is_stopped) {
  const Kind kind = KindOf(path);
  if (kind == Kind::kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(),
                     ": expected a file that ends in .txt, .md, .html, .pdf, .jsonl, .json, "
                     ".csv, .tsv or .parquet"));
  }
  if (kind == Kind::kRows) return ReadRows(path, text_column);
  ASSIGN_OR_RETURN(std::string bytes, ReadFile(path, kMostBytes));
  auto document = ReadOne(kind, std::move(bytes), is_stopped);
  if (absl::IsCancelled(document.status())) return document.status();
  if (!document.ok()) return Annotate(document.status(), path.string());
  return std::vector<Document>{*std::move(document)};
}

}  // namespace flowmesh::retrieval
