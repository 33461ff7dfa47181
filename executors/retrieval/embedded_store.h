// A store as task specs and agents' configurations describe it: where it is, what comes into it,
// how it is searched.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "common/field.h"
#include "common/status.h"
#include "executors/retrieval/ingest.h"
#include "executors/retrieval/store.h"

namespace flowmesh::retrieval {

inline constexpr char kDefaultEmbeddingModel[] = "sentence-transformers/all-MiniLM-L6-v2";

// A map of these; its other members are the caller's. An overlap that is not given is a tenth of
// the size, 20 of the 200 tokens that are the default:
//   path: ./handbook.db          # made when it is not there
//   sources: [./handbook]        # files, folders, URLs that are brought in first; none: as it is
//   chunking: {by: headings, size: 200, overlap: 20}   # or tokens (the default), sentences
//   text_column: text            # of files of rows
//   metadata: {lang: en}         # of every passage; not its `text` and `source`
struct StoreOptions {
  std::string path;
  IngestOptions ingest;
};
absl::StatusOr<StoreOptions> ReadStoreOptions(const Field& block);

// What is the same in all queries: `{top_k: 5, hybrid: true, score_threshold: 0.3,
// filter: {year: {gte: 2020}}}`, each of which may be missing.
absl::StatusOr<StoreQuery> ReadSearchOptions(const Field& block);

struct OpenedStore {
  std::unique_ptr<Store> store;
  std::optional<IngestCounts> ingested;  // nothing: there are no sources
};

// Opens the store, made with the model of that name, and brings the sources in. NotFound: there is
// none, and no source to make it of. Others: of Store::Open and CheckEncoder, by the field, and of
// Ingest.
absl::StatusOr<OpenedStore> OpenStore(const StoreOptions& options, const std::string& model,
                                      const Embedder& embedder, const OnIngest& on_progress);

}  // namespace flowmesh::retrieval
