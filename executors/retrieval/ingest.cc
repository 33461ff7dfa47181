#include "executors/retrieval/ingest.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fetch/file_lock.h"
#include "common/files.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/retrieval/documents.h"
#include "executors/retrieval/page.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kPassagesAtOnce = 128;   // embedded and written together
constexpr int64_t kDefaultPassage = 200;  // tokens
constexpr int64_t kSizeOfOverlap = 10;    // in overlaps, where none is given

struct File {
  fs::path path;      // empty: a page
  std::string field;  // of the source that names it
  std::string url = "";
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
    const std::string field = absl::StrCat(options.field, ".sources[", i, "]");
    if (IsPageUrl(options.sources[i])) {
      files.push_back({{}, field, options.sources[i]});
      continue;
    }
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

absl::Status FitChunking(IngestOptions& options, int64_t most) {
  ChunkOptions& chunking = options.chunking;
  if (chunking.size > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.field, ".chunking.size: expected at most ", most,
                     ", the tokens that the model reads, got ", chunking.size));
  }
  if (chunking.size == 0) {
    chunking.size = std::min(most, kDefaultPassage);
    chunking.overlap = std::min(chunking.overlap, chunking.size - 1);
  }
  if (chunking.overlap < 0) chunking.overlap = chunking.size / kSizeOfOverlap;
  return absl::OkStatus();
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

// Adds passages to a version of a source that has begun, as many at a time as are embedded
// together.
class Adding {
 public:
  // The first `present` passages are there already.
  Adding(const Source& source, size_t present, const IngestOptions& options,
         const Embedder& embedder, Store& store, const OnIngest& on_progress)
      : source_(source),
        present_(present),
        options_(options),
        embedder_(embedder),
        store_(store),
        on_progress_(on_progress) {}

  absl::Status Add(const Document& document) {
    Chunker chunker(document.text, document.headings, options_.chunking, embedder_.count_tokens);
    while (std::optional<Chunk> chunk = chunker.Next()) {
      if (seen_++ < present_) {
        if (seen_ % kPassagesAtOnce == 0 && !GoesOn(0)) return absl::CancelledError("stopped");
        continue;
      }
      Json metadata = {{"source", ""}};  // stands first
      metadata.update(document.metadata);
      if (!chunk->heading.empty()) metadata["heading"] = std::move(chunk->heading);
      metadata.update(options_.metadata);
      // A column of that name does not hide where a passage is from, nor one its text.
      metadata["source"] = source_.name;
      metadata.erase("text");
      passages_.push_back({.text = std::move(chunk->text), .metadata = std::move(metadata)});
      if (passages_.size() == kPassagesAtOnce) RETURN_IF_ERROR(Write());
    }
    return absl::OkStatus();
  }

  // Returns how many passages were added.
  absl::StatusOr<int64_t> Finish() {
    if (!passages_.empty()) RETURN_IF_ERROR(Write());
    RETURN_IF_ERROR(store_.Complete(source_.version, source_.stamp, [this] { return !GoesOn(0); }));
    return added_;
  }

 private:
  // `more`: passages that are embedded and not added yet.
  bool GoesOn(size_t more) const {
    return on_progress_("embedding passages", static_cast<size_t>(added_) + more, 0);
  }

  absl::Status Write() {
    std::vector<std::string> texts;
    for (const Passage& passage : passages_) texts.push_back(passage.text);
    ASSIGN_OR_RETURN(auto vectors,
                     embedder_.embed(texts, [this](size_t done) { return GoesOn(done); }));
    for (size_t i = 0; i < passages_.size(); ++i) passages_[i].vector = std::move(vectors[i]);
    RETURN_IF_ERROR(store_.Append(source_.version, passages_));
    added_ += static_cast<int64_t>(passages_.size());
    passages_.clear();
    return absl::OkStatus();
  }

  const Source& source_;
  const size_t present_;
  const IngestOptions& options_;
  const Embedder& embedder_;
  Store& store_;
  const OnIngest& on_progress_;
  size_t seen_ = 0;
  int64_t added_ = 0;
  std::vector<Passage> passages_;
};

// What is read only when the source is another one than the store has.
using ReadAll = std::function<absl::StatusOr<std::vector<Document>>()>;

// Returns how many passages were added; nothing when the source is as it was. `digest`: of its
// content.
absl::StatusOr<std::optional<int64_t>> Update(Source source, const std::string& digest,
                                              const std::optional<Source>& old, const ReadAll& read,
                                              const std::function<bool()>& is_stopped,
                                              const IngestOptions& options,
                                              const Embedder& embedder, Store& store,
                                              const OnIngest& on_progress) {
  source.digest = absl::StrCat(digest, " ", Sha256Hex(SettingsOf(options)));
  const bool is_same = old && old->digest == source.digest;
  if (is_same && old->is_complete) {
    RETURN_IF_ERROR(store.Restamp(source.name, source.stamp));
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(const std::vector<Document> documents, read());
  if (is_same) {
    source.version = old->version;
  } else {
    ASSIGN_OR_RETURN(source.version, store.Begin(source, is_stopped));
  }
  // Cutting is deterministic: what an interrupted ingestion brought in are the first passages.
  Adding adding(source, is_same ? static_cast<size_t>(old->passages) : 0, options, embedder, store,
                on_progress);
  for (const Document& document : documents) RETURN_IF_ERROR(adding.Add(document));
  ASSIGN_OR_RETURN(const int64_t added, adding.Finish());
  return added;
}

absl::StatusOr<std::optional<int64_t>> IngestFile(const fs::path& path,
                                                  const std::function<bool()>& is_stopped,
                                                  const IngestOptions& options,
                                                  const Embedder& embedder, Store& store,
                                                  const OnIngest& on_progress) {
  const Source source{.name = path.string(), .stamp = StampOf(path, SettingsOf(options))};
  ASSIGN_OR_RETURN(const std::optional<Source> old, store.Find(source.name));
  if (old && old->is_complete && old->stamp == source.stamp) return std::nullopt;
  ASSIGN_OR_RETURN(const std::string digest, Sha256OfFile(path));
  return Update(
      source, digest, old, [&] { return ReadDocuments(path, options.text_column, is_stopped); },
      is_stopped, options, embedder, store, on_progress);
}

absl::StatusOr<std::optional<int64_t>> IngestPage(const std::string& url,
                                                  const std::function<bool()>& is_stopped,
                                                  const IngestOptions& options,
                                                  const Embedder& embedder, Store& store,
                                                  const OnIngest& on_progress) {
  ASSIGN_OR_RETURN(Page page, FetchPage(url, is_stopped));
  // A query may hold a token: it is told by its digest.
  const std::string shown = ShownUrl(url);
  const bool is_plain = WithoutUserInfo(url) == shown;
  const Source source{
      .name = is_plain ? shown : absl::StrCat(shown, "#", Sha256Hex(url).substr(0, 12)),
      .stamp = "page"};
  ASSIGN_OR_RETURN(const std::optional<Source> old, store.Find(source.name));
  const std::string digest = Sha256Hex(page.content);
  const auto read = [&]() -> absl::StatusOr<std::vector<Document>> {
    auto document = ReadDocument(std::move(page.content), page.ending, is_stopped);
    if (absl::IsCancelled(document.status())) return document.status();
    if (!document.ok()) return Annotate(document.status(), ShownUrl(url));
    return std::vector<Document>{*std::move(document)};
  };
  return Update(source, digest, old, read, is_stopped, options, embedder, store, on_progress);
}

// Of files that were in a folder among the sources and are not any more.
absl::StatusOr<int64_t> RemoveGone(const IngestOptions& options, Store& store,
                                   const std::function<bool()>& is_stopped) {
  int64_t removed = 0;
  for (const std::string& source : options.sources) {
    std::error_code ignored;
    const fs::path folder = fs::absolute(source, ignored).lexically_normal();
    if (IsPageUrl(source) || !fs::is_directory(folder, ignored)) continue;
    ASSIGN_OR_RETURN(const std::vector<std::string> names, store.SourcesBelow(folder));
    for (const std::string& name : names) {
      std::error_code error;
      if (fs::exists(name, error) || error) continue;
      RETURN_IF_ERROR(store.Remove(name, is_stopped));
      ++removed;
    }
  }
  return removed;
}

// Two that go on with the same version would both add to it: one at a time brings something in.
absl::StatusOr<FileLock> TakeTurn(const Store& store, const OnIngest& on_progress) {
  std::error_code error;
  const fs::path file = fs::canonical(store.path(), error);  // by whatever name it was opened
  if (error) {
    return absl::UnavailableError(absl::StrCat(store.path().string(), ": ", error.message()));
  }
  return FileLock::Take(file.string() + ".lock",
                        [&] { return !on_progress("waiting for another ingestion", 0, 1); });
}

}  // namespace

absl::StatusOr<IngestCounts> Ingest(IngestOptions options, const Embedder& embedder, Store& store,
                                    const OnIngest& on_progress) {
  RETURN_IF_ERROR(FitChunking(options, embedder.max_tokens));
  ASSIGN_OR_RETURN(const FileLock lock, TakeTurn(store, on_progress));
  ASSIGN_OR_RETURN(const std::vector<File> files, Files(options));
  IngestCounts counts;
  const auto is_stopped = [&] {
    return !on_progress("reading", static_cast<size_t>(counts.files), files.size());
  };
  for (const File& file : files) {
    if (is_stopped()) return absl::CancelledError("stopped");
    const auto added =
        file.url.empty() ? IngestFile(file.path, is_stopped, options, embedder, store, on_progress)
                         : IngestPage(file.url, is_stopped, options, embedder, store, on_progress);
    if (absl::IsCancelled(added.status())) return added.status();
    if (!added.ok()) return Annotate(added.status(), file.field);
    ++counts.files;
    counts.unchanged += added->has_value() ? 0 : 1;
    counts.passages += added->value_or(0);
  }
  ASSIGN_OR_RETURN(counts.removed, RemoveGone(options, store, is_stopped));
  return counts;
}

}  // namespace flowmesh::retrieval
