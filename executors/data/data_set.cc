#include "executors/data/data_set.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/fetch/downloader.h"
#include "common/fetch/file_lock.h"
#include "common/files.h"
#include "common/http.h"
#include "common/strings.h"
#include "executors/data/data_repository.h"
#include "executors/data/read_table.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

// A file as a set of its own: its one split is called train.
Configuration FileAsSplit(const std::string& name) {
  return {.name = "default", .is_default = true, .splits = {{.name = "train", .files = {name}}}};
}

std::string Names(const std::vector<Configuration>& configurations) {
  return absl::StrJoin(configurations, ", ",
                       [](std::string* out, const Configuration& one) { *out += one.name; });
}

std::string Names(const std::vector<SplitFiles>& splits) {
  return absl::StrJoin(splits, ", ",
                       [](std::string* out, const SplitFiles& one) { *out += one.name; });
}

const Configuration* FindNamed(const std::vector<Configuration>& all, const std::string& name) {
  for (const Configuration& one : all) {
    if (one.name == name) return &one;
  }
  return nullptr;
}

// The configuration that `name` means; empty: the default one.
absl::StatusOr<const Configuration*> Choose(const std::vector<Configuration>& all,
                                            const std::string& name, const DataSet& data_set) {
  if (!name.empty()) {
    if (const Configuration* found = FindNamed(all, name)) return found;
    return absl::InvalidArgumentError(absl::StrCat(
        data_set.config_path, ": unknown configuration '", name, "'; known: ", Names(all)));
  }
  for (const Configuration& one : all) {
    if (one.is_default) return &one;
  }
  if (all.size() == 1) return &all[0];
  if (const Configuration* found = FindNamed(all, "default")) return found;
  return absl::InvalidArgumentError(absl::StrCat(
      data_set.config_path, ": the data set has several configurations, name one: ", Names(all)));
}

// A file of the set as rows.
using ReadFileOf = std::function<absl::StatusOr<Table>(const std::string& name)>;

absl::StatusOr<Table> ReadFiles(const std::vector<std::string>& files, const ReadFileOf& read) {
  Table table;
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(Table part, read(file));
    table.Append(std::move(part));
  }
  return table;
}

absl::StatusOr<std::vector<std::string>> FilesOf(const SplitPart& part,
                                                 const Configuration& configuration,
                                                 const DataSet& data_set) {
  std::vector<std::string> files;
  bool is_known = part.name == "all";
  for (const SplitFiles& split : configuration.splits) {
    if (part.name != "all" && part.name != split.name) continue;
    is_known = true;
    files.insert(files.end(), split.files.begin(), split.files.end());
  }
  if (is_known) return files;
  return absl::InvalidArgumentError(absl::StrCat(data_set.split_path, ": unknown split '",
                                                 part.name,
                                                 "'; known: ", Names(configuration.splits)));
}

// The rows of `parts`, in their order.
absl::StatusOr<Table> ReadSplit(const std::vector<SplitPart>& parts,
                                const Configuration& configuration, const DataSet& data_set,
                                const ReadFileOf& read) {
  for (const SplitPart& part : parts) {  // all are checked before the first is read
    RETURN_IF_ERROR(FilesOf(part, configuration, data_set).status());
  }
  Table result;
  for (const SplitPart& part : parts) {
    ASSIGN_OR_RETURN(const auto files, FilesOf(part, configuration, data_set));
    ASSIGN_OR_RETURN(Table table, ReadFiles(files, read));
    const Range range = Slice(part, table.rows.size());
    table.rows.resize(range.end);
    table.rows.erase(table.rows.begin(),
                     table.rows.begin() + static_cast<std::ptrdiff_t>(range.begin));
    result.Append(std::move(table));
  }
  return result;
}

// Whether a configuration named like the set's own is missing, which for dpo may mean a split.
bool MayMeanSplit(const std::vector<Configuration>& all, const DataSet& data_set) {
  return data_set.configuration_may_be_split && !data_set.configuration.empty() &&
         FindNamed(all, data_set.configuration) == nullptr;
}

absl::StatusOr<Table> ReadConfigured(const std::vector<Configuration>& all, const DataSet& data_set,
                                     const ReadFileOf& read) {
  if (!MayMeanSplit(all, data_set)) {
    ASSIGN_OR_RETURN(const Configuration* chosen, Choose(all, data_set.configuration, data_set));
    return ReadSplit(data_set.split, *chosen, data_set, read);
  }
  ASSIGN_OR_RETURN(const Configuration* chosen, Choose(all, "", data_set));
  const std::vector<SplitPart> as_split = {{.name = data_set.configuration}};
  const bool is_split = FilesOf(as_split[0], *chosen, data_set).ok();
  return ReadSplit(is_split ? as_split : data_set.split, *chosen, data_set, read);
}

absl::StatusOr<Table> LoadFile(const fs::path& path, const std::string& name,
                               const DataSet& data_set) {
  return ReadConfigured({FileAsSplit(name)}, data_set, [&](const std::string&) {
    auto table = ReadTable(path, name);
    return table.ok() ? std::move(table) : Annotate(table.status(), data_set.path);
  });
}

absl::StatusOr<Table> LoadRepository(DataRepository& repository, const DataSet& data_set) {
  auto all = repository.Configurations();
  if (!all.ok()) return Annotate(all.status(), data_set.path);
  return ReadConfigured(*all, data_set, [&](const std::string& name) -> absl::StatusOr<Table> {
    auto path = repository.Fetch(name);
    if (!path.ok()) return Annotate(path.status(), data_set.path);
    auto table = ReadTable(*path, name);
    return table.ok() ? std::move(table) : Annotate(table.status(), data_set.path);
  });
}

}  // namespace

std::string FileNameOf(const std::string& url, const std::string& fallback) {
  const std::string path = url.substr(0, url.find_first_of("?#"));
  const std::string name = path.substr(path.rfind('/') + 1);
  const bool is_host_only = path.find('/', path.find("://") + 3) == std::string::npos;
  return !is_host_only && IsPlainFileName(name) ? name : fallback;
}

absl::StatusOr<Headers> ReadHeaders(const Field& field) {
  RETURN_IF_ERROR(field.CheckMap());
  Headers headers;
  if (!field.present()) return headers;
  for (const auto& [name, value] : field.json().items()) {
    if (value.is_null()) continue;
    // Never shows a value: it may be a secret.
    if (!value.is_string()) return field[name].Error("expected a string");
    headers.emplace_back(name, value.get<std::string>());
  }
  return headers;
}

absl::StatusOr<absl::Duration> ReadTimeout(const Field& field) {
  ASSIGN_OR_RETURN(const double seconds, field.NumberOr(60, {.above = 0}));
  return absl::Seconds(seconds);
}

absl::StatusOr<DataSet> ReadDataSet(const Field& data, const Field& name,
                                    const Field& configuration) {
  DataSet result{
      .path = name.path(), .split_path = data["split"].path(), .config_path = configuration.path()};
  ASSIGN_OR_RETURN(result.name, name.NonEmptyString());
  ASSIGN_OR_RETURN(const std::string given, configuration.StringOr(""));
  result.configuration = std::string(Trim(given));
  ASSIGN_OR_RETURN(const std::string revision, data["revision"].StringOr("main"));
  if (!Trim(revision).empty()) result.revision = std::string(Trim(revision));
  ASSIGN_OR_RETURN(const std::string split, data["split"].StringOr("train"));
  auto parts = ParseSplit(Trim(split).empty() ? "train" : split);
  if (!parts.ok()) return Annotate(parts.status(), result.split_path);
  result.split = *std::move(parts);
  ASSIGN_OR_RETURN(result.headers, ReadHeaders(data["headers"]));
  ASSIGN_OR_RETURN(result.timeout, ReadTimeout(data["timeoutSec"]));
  return result;
}

absl::StatusOr<fs::path> DownloadInput(const std::string& url, const Headers& headers,
                                       absl::Duration timeout, const std::string& fallback_name,
                                       bool token_without_origin, const DataContext& context) {
  const fs::path folder = context.task_dir / "inputs";
  // The ranks of a job load the same file.
  ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(folder / ".lock", context.is_cancelled));
  Downloader downloader({.token = context.orchestrator_token,
                         .token_urls = {context.orchestrator_base_url, context.destination_url},
                         .token_without_origin = token_without_origin,
                         .retry_limit = context.retry_limit,
                         .on_retry = context.warn},
                        Clock::Real());
  DownloadRequest request{.url = url,
                          .headers = headers,
                          .to = folder / FileNameOf(url, fallback_name),
                          .timeout = timeout,
                          .no_link_local = true};
  if (context.on_download) {
    request.on_progress = [&](uint64_t done, uint64_t total) {
      context.on_download(request.to.filename().string(), done, total);
    };
  }
  std::error_code ignored;
  if (context.may_reuse && fs::is_regular_file(request.to, ignored)) return request.to;
  RETURN_IF_ERROR(downloader.Download(request, context.is_cancelled).status());
  return request.to;
}

absl::StatusOr<Table> LoadDataSet(const DataSet& data_set, const DataContext& context) {
  std::error_code ignored;
  const fs::path local = LocalPath(data_set.name, context);
  if (fs::is_regular_file(local, ignored)) {
    return LoadFile(local, local.filename().string(), data_set);
  }
  if (fs::is_directory(local, ignored)) {
    FolderRepository repository(local);
    return LoadRepository(repository, data_set);
  }
  if (!UrlOrigin(data_set.name).empty()) {
    auto file = DownloadInput(data_set.name, data_set.headers, data_set.timeout, "dataset",
                              /*token_without_origin=*/false, context);
    if (!file.ok()) return Annotate(file.status(), data_set.path);
    return LoadFile(*file, file->filename().string(), data_set);
  }
  auto repository = OpenHubRepository(data_set, local, context);
  if (!repository.ok()) return Annotate(repository.status(), data_set.path);
  return LoadRepository(**repository, data_set);
}

}  // namespace flowmesh::data
