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
  // A vector for each text. `go_on` gets how many are done and says whether to go on. Cancelled: it
  // said no.
  std::function<absl::StatusOr<std::vector<std::vector<float>>>(
      const std::vector<std::string>& texts, const std::function<bool(size_t done)>& go_on)>
      embed;
  std::function<int64_t(std::string_view word)> count_tokens;
  int64_t dimension = 0;   // of a vector
  int64_t max_tokens = 0;  // of a passage; what it has more is not read
};

struct IngestOptions {
  // Files, folders with all documents below them, and pages by their URL.
  std::vector<std::string> sources;
  std::string field;  // the map that holds `sources` and `chunking`, for errors
  // A size of 0: the default, or what the model reads where that is less. An overlap below 0: a
  // tenth of the size.
  ChunkOptions chunking;
  std::string text_column = "text";  // of files of rows
  Json metadata = Json::object();    // of every passage
};

struct IngestCounts {
  int64_t files = 0;      // and pages
  int64_t unchanged = 0;  // of them
  int64_t passages = 0;   // that were added
  int64_t removed = 0;    // files that are no longer in their folder
};

// How far an ingestion is, `waiting for another ingestion`, `reading` of files or `embedding
// passages` of one, which are as many as there will be (a total of 0); whether to go on. Also
// called while a file is fetched or read.
using OnIngest = std::function<bool(const std::string& stage, size_t done, size_t total)>;

// A file comes in whole or goes on where an interruption left it; until then its older version is
// what is found. One that is as it was does nothing; one that has gone from a folder among the
// sources goes. One ingestion at a time: others into the store, of any process, wait for their turn
// at `<store>.lock`; searches go on. InvalidArgument, NotFound: a source, by its field and path, or
// passages that the model cannot read. Cancelled. Others: of the store.
absl::StatusOr<IngestCounts> Ingest(IngestOptions options, const Embedder& embedder, Store& store,
                                    const OnIngest& on_progress);

}  // namespace flowmesh::retrieval
