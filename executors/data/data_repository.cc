#include "executors/data/data_repository.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/hub/hub.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

constexpr char kReadme[] = "README.md";
constexpr char kConverted[] = "refs/convert/parquet";  // the hub's own branch

absl::Status NoDataFiles(std::string_view where) {
  return absl::NotFoundError(
      absl::StrCat(ToAbsl(where),
                   " holds no data file (.jsonl, .json, .csv, .tsv, .txt, .parquet "
                   "or .arrow)"));
}

bool IsExplicitPath(const std::string& name) {
  for (const char* start : {"/", "./", "../", "~"}) {
    if (name.rfind(start, 0) == 0) return true;
  }
  return false;
}

// A repository of the hub: listed by the hub, since its cache may hold only some of its files, or
// by the cache where the hub cannot be asked; its files come from the cache first.
class HubRepository : public DataRepository {
 public:
  HubRepository(hub::Repository repository, const DataContext& context)
      : repository_(std::move(repository)),
        context_(context),
        hub_(hub::Settings::FromEnv(context.env), {.is_cancelled = context.is_cancelled,
                                                   .on_progress = context.on_download,
                                                   .on_retry = context.warn,
                                                   .retry_limit = context.retry_limit}) {}

  absl::StatusOr<std::vector<Configuration>> Configurations() override {
    RETURN_IF_ERROR(ListFiles());
    std::string readme;
    if (std::find(listing_.files.begin(), listing_.files.end(), kReadme) != listing_.files.end()) {
      ASSIGN_OR_RETURN(const fs::path path, Fetch(kReadme));
      ASSIGN_OR_RETURN(readme, ReadFile(path));
    }
    ASSIGN_OR_RETURN(auto found, FindConfigurations(listing_.files, readme));
    if (!found.empty()) return found;
    ASSIGN_OR_RETURN(found, Converted());
    if (!found.empty()) return found;
    found = AllFilesAsTrain(listing_.files);
    if (!found.empty()) return found;
    return NoDataFiles(absl::StrCat("data set ", repository_.id));
  }

  absl::StatusOr<fs::path> Fetch(const std::string& name) override {
    if (!cached_.empty()) return cached_ / name;
    ASSIGN_OR_RETURN(const fs::path snapshot, hub_.Fetch(repository_, listing_, {name}));
    return snapshot / name;
  }

 private:
  // Fills `listing_`, and `cached_` when it comes from the cache.
  absl::Status ListFiles() {
    const auto snapshot = hub_.FindCached(repository_);
    auto listing = hub_.List(repository_);
    if (listing.ok()) {
      listing_ = *std::move(listing);
      return absl::OkStatus();
    }
    const absl::Status& why = listing.status();
    const bool is_away = absl::IsFailedPrecondition(why) || absl::IsUnavailable(why) ||
                         absl::IsDeadlineExceeded(why);
    if (is_away && snapshot.ok()) {
      if (context_.warn) {
        context_.warn(
            absl::StrCat("data set ", repository_.id, " is read from the cache: ", why.message()));
      }
      cached_ = *snapshot;
      listing_.files = FilesBelow(cached_);
      return absl::OkStatus();
    }
    return absl::Status(
        why.code(),
        absl::StrCat("data set \"", repository_.id, "\" (revision ", repository_.revision,
                     ") was not found: ", hub_.CacheFolder(repository_).string(), ": ",
                     snapshot.ok() ? "not asked" : Message(snapshot.status()), "; ",
                     ShownUrl(hub_.settings().endpoint), ": ", why.message()));
  }

  // The configurations of the converted branch, on which the files are from then on; none when
  // there is no such branch.
  absl::StatusOr<std::vector<Configuration>> Converted() {
    hub::Repository branch = repository_;
    branch.revision = kConverted;
    hub::Listing listing;
    fs::path cached;
    if (cached_.empty()) {
      auto listed = hub_.List(branch);
      if (absl::IsNotFound(listed.status())) return std::vector<Configuration>();
      if (!listed.ok()) return listed.status();
      listing = *std::move(listed);
    } else {
      const auto snapshot = hub_.FindCached(branch);
      if (!snapshot.ok()) return std::vector<Configuration>();
      cached = *snapshot;
      listing.files = FilesBelow(cached);
    }
    std::vector<Configuration> found = ConvertedConfigurations(listing.files);
    if (!found.empty()) {
      repository_ = std::move(branch);
      listing_ = std::move(listing);
      cached_ = std::move(cached);
    }
    return found;
  }

  hub::Repository repository_;
  const DataContext& context_;
  hub::Hub hub_;
  hub::Listing listing_;
  fs::path cached_;  // the snapshot, when the hub cannot be asked
};

}  // namespace

std::vector<std::string> FilesBelow(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, error), end;
  for (; !error && entries != end; entries.increment(error)) {
    std::error_code ignored;
    if (entries->is_regular_file(ignored)) {
      names.push_back(entries->path().lexically_relative(folder).generic_string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path LocalPath(const std::string& name, const DataContext& context) {
  return hub::ExpandHome(name, context.env);
}

absl::StatusOr<std::vector<Configuration>> FolderRepository::Configurations() {
  const std::vector<std::string> names = FilesBelow(folder_);
  std::string readme;
  if (auto text = ReadFile(folder_ / kReadme); text.ok()) readme = *std::move(text);
  ASSIGN_OR_RETURN(auto found, FindConfigurations(names, readme));
  if (found.empty()) found = AllFilesAsTrain(names);
  if (found.empty()) return NoDataFiles(folder_.string());
  return found;
}

absl::StatusOr<fs::path> FolderRepository::Fetch(const std::string& name) { return folder_ / name; }

absl::StatusOr<std::unique_ptr<DataRepository>> OpenHubRepository(const DataSet& data_set,
                                                                  const fs::path& local,
                                                                  const DataContext& context) {
  std::error_code ignored;
  const std::string tried = fs::absolute(local, ignored).string();
  if (IsExplicitPath(data_set.name)) {
    return absl::NotFoundError(absl::StrCat("no such file or folder: ", tried));
  }
  if (!hub::IsHubId(data_set.name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", data_set.name,
                     "\" is neither a file or folder that exists, nor an http(s) URL, nor a hub id "
                     "(organisation/name); looked for ",
                     tried));
  }
  if (!hub::IsRevision(data_set.revision)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", data_set.revision, "\" is no revision"));
  }
  return std::make_unique<HubRepository>(
      hub::Repository{hub::Kind::kDataSet, data_set.name, data_set.revision}, context);
}

}  // namespace flowmesh::data
