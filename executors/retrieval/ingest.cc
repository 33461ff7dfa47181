#include "executors/retrieval/ingest.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/retrieval/documents.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPassagesAtOnce = 128;  // embedded and written together

struct File {
  fs::path path;
  std::string field;  // of the source that names it
};

absl::Status AddFolder(const fs::path& folder, const std::string& field, std::vector<File>& out) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename().string().starts_with(".")) {
      if (it->is_directory(error)) it.disable_recursion_pending();
      continue;
    }
    if (it->is_regular_file(error) && IsDocument(it->path())) found.push_back(it->path());
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat(field, ": cannot read ", folder.string(), ": ", error.message()));
  }
  if (found.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": no document in ", folder.string(), " or below"));
  }
  std::sort(found.begin(), found.end());
  for (fs::path& path : found) out.push_back({std::move(path), field});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<File>> Files(const IngestOptions& options) {
  std::vector<File> files;
  for (size_t i = 0; i < options.sources.size(); ++i) {
    const std::string field = absl::StrCat(options.field, "[", i, "]");
    std::error_code ignored;
    const fs::path path = fs::absolute(options.sources[i], ignored).lexically_normal();
    if (fs::is_directory(path, ignored)) {
      RETURN_IF_ERROR(AddFolder(path, field, files));
    } else if (fs::exists(path, ignored)) {
      files.push_back({path, field});
    } else {
      return absl::NotFoundError(absl::StrCat(field, ": no such file or folder: ", path.string()));
    }
  }
  return files;
}

// What decides how a document is cut, as text.
std::string SettingsOf(const IngestOptions& options) {
  return absl::StrCat(static_cast<int>(options.chunking.by), " ", options.chunking.size, " ",
                      options.chunking.overlap, " ", options.text_column, " ",
                      DumpJson(options.metadata));
}

std::string StampOf(const fs::path& path, const std::string& settings) {
  std::error_code ignored;
  return absl::StrCat(fs::file_size(path, ignored), " ",
                      fs::last_write_time(path, ignored).time_since_epoch().count(), " ", settings);
}

// The passages of a file, without vectors.
absl::StatusOr<std::vector<Passage>> PassagesOf(const fs::path& path, const IngestOptions& options,
                                                const Embedder& embedder) {
  ASSIGN_OR_RETURN(std::vector<Document> documents, ReadDocuments(path, options.text_column));
  std::vector<Passage> passages;
  for (const Document& document : documents) {
    for (Chunk& chunk : ChunkText(document.text, options.chunking, embedder.count_tokens)) {
      Json metadata = {{"source", path.string()}};
      metadata.update(document.metadata);
      if (!chunk.heading.empty()) metadata["heading"] = chunk.heading;
      metadata.update(options.metadata);
      passages.push_back({.text = std::move(chunk.text), .metadata = std::move(metadata)});
    }
  }
  return passages;
}

// Returns how many passages were added; nothing when the file is as it was.
absl::StatusOr<std::optional<int64_t>> IngestFile(const fs::path& path,
                                                  const IngestOptions& options,
                                                  const Embedder& embedder, Store& store) {
  const std::string settings = SettingsOf(options);
  Source source{.name = path.string(), .stamp = StampOf(path, settings)};
  ASSIGN_OR_RETURN(const std::optional<Source> old, store.Find(source.name));
  if (old && old->is_complete && old->stamp == source.stamp) return std::nullopt;
  ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(path));
  source.digest = absl::StrCat(digest, " ", Sha256Hex(settings));
  const bool is_same = old && old->digest == source.digest;
  if (is_same && old->is_complete) {
    RETURN_IF_ERROR(store.Complete(source.name, source.stamp));
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(std::vector<Passage> passages, PassagesOf(path, options, embedder));
  // Cutting is deterministic: what an interrupted ingestion brought in are the first passages.
  const size_t present = is_same ? static_cast<size_t>(old->passages) : 0;
  if (!is_same) RETURN_IF_ERROR(store.Begin(source));
  for (size_t begin = present; begin < passages.size(); begin += kPassagesAtOnce) {
    const size_t end = std::min(begin + kPassagesAtOnce, passages.size());
    std::vector<std::string> texts;
    for (size_t i = begin; i < end; ++i) texts.push_back(passages[i].text);
    ASSIGN_OR_RETURN(auto vectors, embedder.embed(texts));
    std::vector<Passage> batch;
    for (size_t i = begin; i < end; ++i) {
      passages[i].vector = std::move(vectors[i - begin]);
      batch.push_back(std::move(passages[i]));
    }
    RETURN_IF_ERROR(store.Append(source.name, batch));
  }
  RETURN_IF_ERROR(store.Complete(source.name, source.stamp));
  return static_cast<int64_t>(passages.size() - std::min(present, passages.size()));
}

}  // namespace

absl::StatusOr<IngestCounts> Ingest(const IngestOptions& options, const Embedder& embedder,
                                    Store& store,
                                    const std::function<bool(size_t done, size_t files)>& on_file) {
  ASSIGN_OR_RETURN(const std::vector<File> files, Files(options));
  IngestCounts counts;
  for (const File& file : files) {
    if (!on_file(static_cast<size_t>(counts.files), files.size())) {
      return absl::CancelledError("stopped");
    }
    const auto added = IngestFile(file.path, options, embedder, store);
    if (absl::IsCancelled(added.status())) return added.status();
    if (!added.ok()) return Annotate(added.status(), file.field);
    ++counts.files;
    counts.unchanged += added->has_value() ? 0 : 1;
    counts.passages += added->value_or(0);
  }
  return counts;
}

}  // namespace flowmesh::retrieval
