// Brings documents into a store.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/retrieval/chunker.h"
#include "executors/retrieval/store.h"

namespace flowmesh::retrieval {

// What the embedding model gives; the model itself stands behind it.
struct Embedder {
  // A vector for each text. Cancelled.
  std::function<absl::StatusOr<std::vector<std::vector<float>>>(const std::vector<std::string>&)>
      embed;
  std::function<int64_t(std::string_view word)> count_tokens;
};

struct IngestOptions {
  // Files, folders with all documents below them, and pages by their URL.
  std::vector<std::string> sources;
  std::string field;  // the list of them, for errors
  ChunkOptions chunking;
  std::string text_column = "text";    // of files of rows
  Json metadata = Json::object();      // of every passage
  std::function<bool()> is_cancelled;  // polled during downloads; may be null
};

struct IngestCounts {
  int64_t files = 0;      // and pages
  int64_t unchanged = 0;  // of them
  int64_t passages = 0;   // that were added
};

// A file comes in whole or goes on where an interruption left it; one that is as it was does
// nothing. `on_file` gets the place of each and their number, and says whether to go on.
// InvalidArgument, NotFound: a source, by its field and path. Cancelled. Others: of the store.
absl::StatusOr<IngestCounts> Ingest(const IngestOptions& options, const Embedder& embedder,
                                    Store& store,
                                    const std::function<bool(size_t done, size_t files)>& on_file);

}  // namespace flowmesh::retrieval
