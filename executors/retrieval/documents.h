// The documents in a file: text, Markdown, HTML and PDF hold one, files of rows one in each row.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/retrieval/chunker.h"

namespace flowmesh::retrieval {

struct Document {
  std::string text;
  Json metadata = Json::object();  // a page's `title`, a row's other columns and its `row`
  std::vector<Heading> headings;   // of Markdown and HTML
};

// Whether a file is one that is read, by its ending.
bool IsDocument(const std::filesystem::path& path);

// `.txt`, `.text`, `.md`, `.markdown`, `.html`, `.htm`, `.pdf`, and files of rows (`.jsonl`,
// `.json`,
// `.csv`, `.tsv`, `.parquet`) with the text in `text_column`. Errors name the file.
// InvalidArgument: another ending, a PDF that is none, text that is not UTF-8, rows without that
// column. ResourceExhausted: a PDF with too much text. Cancelled: `is_stopped`, which is polled
// between pages of a PDF and may be null.
absl::StatusOr<std::vector<Document>> ReadDocuments(const std::filesystem::path& path,
                                                    const std::string& text_column,
                                                    const std::function<bool()>& is_stopped);

// The document in `content`, which is HTML, a PDF, or text with whatever other ending. Errors as
// above, without a name. Any thread.
absl::StatusOr<Document> ReadDocument(std::string content, const std::string& ending,
                                      const std::function<bool()>& is_stopped);

}  // namespace flowmesh::retrieval
