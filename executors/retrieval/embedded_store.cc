#include "executors/retrieval/embedded_store.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/retrieval/filter.h"

namespace flowmesh::retrieval {
namespace {

constexpr int64_t kMostPassages = 10000;  // that a query finds
constexpr int64_t kMostTokens = 1 << 20;  // of a passage
// Tells encoders of one name apart. A store keeps its vector: another text is another format.
constexpr char kProbe[] = "The quick brown fox jumps over the lazy dog, 42 times a day.";

absl::StatusOr<ChunkOptions> ReadChunking(const Field& block) {
  using By = ChunkOptions::By;
  RETURN_IF_ERROR(block.CheckMap());
  ChunkOptions options;
  ASSIGN_OR_RETURN(const std::string by, block["by"].StringOr("tokens"));
  if (Trim(by) == "sentences") {
    options.by = By::kSentences;
  } else if (Trim(by) == "headings") {
    options.by = By::kHeadings;
  } else if (Trim(by) != "tokens") {
    return block["by"].Expected("tokens, sentences or headings");
  }
  ASSIGN_OR_RETURN(options.size, block["size"].IntOr(0, 1, kMostTokens));
  ASSIGN_OR_RETURN(options.overlap, block["overlap"].IntOr(-1, 0, kMostTokens));
  if (options.size > 0 && options.overlap >= options.size) {
    return block["overlap"].Expected(absl::StrCat("less than the size ", options.size));
  }
  return options;
}

}  // namespace

absl::StatusOr<StoreOptions> ReadStoreOptions(const Field& block) {
  RETURN_IF_ERROR(block.CheckMap());
  StoreOptions options;
  ASSIGN_OR_RETURN(options.path, block["path"].NonEmptyString());
  options.ingest.field = block.path();
  if (block["sources"].present()) {
    ASSIGN_OR_RETURN(options.ingest.sources, block["sources"].StringList());
  }
  ASSIGN_OR_RETURN(options.ingest.chunking, ReadChunking(block["chunking"]));
  ASSIGN_OR_RETURN(options.ingest.text_column,
                   block["text_column"].StringOr(options.ingest.text_column));
  RETURN_IF_ERROR(block["metadata"].CheckMap());
  if (block["metadata"].present()) options.ingest.metadata = block["metadata"].json();
  for (const char* key : {"text", "source"}) {
    if (options.ingest.metadata.contains(key)) {
      return block["metadata"][key].Error(
          "every passage has this of its own: expected another name");
    }
  }
  return options;
}

absl::StatusOr<StoreQuery> ReadSearchOptions(const Field& block) {
  RETURN_IF_ERROR(block.CheckMap());
  StoreQuery query;
  ASSIGN_OR_RETURN(query.limit, block["top_k"].IntOr(query.limit, 1, kMostPassages));
  ASSIGN_OR_RETURN(query.hybrid, block["hybrid"].BoolOr(false));
  if (block["score_threshold"].present()) {
    ASSIGN_OR_RETURN(query.threshold, block["score_threshold"].Number());
  }
  RETURN_IF_ERROR(CheckFilter(block["filter"].json(), block["filter"].path()));
  if (block["filter"].present()) query.filter = block["filter"].json();
  return query;
}

absl::StatusOr<OpenedStore> OpenStore(const StoreOptions& options, const std::string& model,
                                      const Embedder& embedder, const OnIngest& on_progress) {
  const std::string field = absl::StrCat(options.ingest.field, ".path");
  std::error_code ignored;
  if (options.ingest.sources.empty() && !std::filesystem::exists(options.path, ignored)) {
    return absl::NotFoundError(
        absl::StrCat(field, ": no store at ", options.path, ", and no `sources` to make one of"));
  }
  auto store = Store::Open(options.path, model, embedder.dimension);
  if (!store.ok()) return Annotate(store.status(), field);
  ASSIGN_OR_RETURN(const auto vectors, embedder.embed({kProbe}, [](size_t) { return true; }));
  const absl::Status encoder = (*store)->CheckEncoder(vectors.front());
  if (!encoder.ok()) return Annotate(encoder, field);
  OpenedStore opened{*std::move(store), std::nullopt};
  if (options.ingest.sources.empty()) return opened;
  ASSIGN_OR_RETURN(opened.ingested, Ingest(options.ingest, embedder, *opened.store, on_progress));
  return opened;
}

}  // namespace flowmesh::retrieval
