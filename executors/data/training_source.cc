#include "executors/data/training_source.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/data/read_table.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

using ReadRow = std::function<absl::StatusOr<Json>(const Field&)>;

absl::Status AddCandidate(const Field& field, JsonlFile& file) {
  if (!field.present()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::string location, field.NonEmptyString());
  const bool is_known =
      std::any_of(file.candidates.begin(), file.candidates.end(),
                  [&](const JsonlFile::Candidate& known) { return known.location == location; });
  if (!is_known) file.candidates.push_back({field.path(), std::move(location)});
  return absl::OkStatus();
}

absl::StatusOr<JsonlFile> ReadJsonlBlock(const Field& data) {
  const Field block = data["jsonl"];
  RETURN_IF_ERROR(block.CheckMap());
  JsonlFile file{.path = block.present() ? block.path() : data["jsonl_path"].path()};
  RETURN_IF_ERROR(AddCandidate(block["download_url"], file));
  RETURN_IF_ERROR(AddCandidate(block["url"], file));
  RETURN_IF_ERROR(AddCandidate(block["path"].present() ? block["path"] : data["jsonl_path"], file));
  RETURN_IF_ERROR(AddCandidate(block["worker_path"], file));
  if (file.candidates.empty()) {
    return block.Error("expected one of download_url, url, path and worker_path, got none");
  }
  ASSIGN_OR_RETURN(file.headers, ReadHeaders(block.FirstOf({"download_headers", "headers"})));
  ASSIGN_OR_RETURN(file.timeout,
                   ReadTimeout(block.FirstOf({"download_timeoutSec", "timeoutSec", "timeout"})));
  return file;
}

absl::StatusOr<InlineRows> ReadInline(const Field& list, const ReadRow& read_row) {
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() == 0) return list.Error("expected a non-empty list, got an empty one");
  InlineRows rows{.path = list.path()};
  for (size_t i = 0; i < list.size(); ++i) {
    ASSIGN_OR_RETURN(Json row, read_row(list[i]));
    rows.rows.Add(std::move(row), 0);
  }
  return rows;
}

// Where a path of a spec may lie, in the order of TASKS.md 2.8.
std::vector<fs::path> Places(const fs::path& path, const fs::path& task_dir) {
  std::vector<fs::path> places;
  std::error_code ignored;
  if (path.is_absolute()) {
    places.push_back(path);
  } else {
    places = {task_dir / path, fs::current_path(ignored) / path};
  }
  places.push_back(task_dir.parent_path() / path.filename());
  places.push_back(task_dir.parent_path().parent_path() / path.filename());
  return places;
}

absl::StatusOr<fs::path> FindLocal(const std::string& location, const DataContext& context) {
  std::error_code ignored;
  const std::vector<fs::path> places = Places(location, context.task_dir);
  for (const fs::path& place : places) {
    if (fs::is_regular_file(place, ignored)) return place;
  }
  return absl::NotFoundError(absl::StrCat(
      "no such file; looked for ",
      absl::StrJoin(places, ", ",
                    [](std::string* out, const fs::path& place) { *out += place.string(); })));
}

absl::StatusOr<Table> LoadJsonl(const JsonlFile& file, const DataContext& context) {
  std::vector<std::string> causes;
  absl::Status last;
  for (const JsonlFile::Candidate& candidate : file.candidates) {
    const bool is_url = !UrlOrigin(candidate.location).empty();
    const auto found =
        is_url ? DownloadInput(candidate.location, file.headers, file.timeout, "dataset.jsonl",
                               /*token_without_origin=*/true, context)
               : FindLocal(candidate.location, context);
    if (found.ok()) {
      auto table = ReadJsonlFile(*found, found->filename().string());
      return table.ok() ? std::move(table) : Annotate(table.status(), candidate.path);
    }
    last = found.status();
    if (absl::IsCancelled(last)) return last;
    causes.push_back(absl::StrCat(candidate.path, ": ", is_url ? "" : candidate.location + ": ",
                                  last.message()));
  }
  if (causes.size() == 1) return absl::Status(last.code(), causes[0]);
  return absl::Status(
      last.code(),
      absl::StrCat(file.path, ": none of its files can be had: ", absl::StrJoin(causes, "; ")));
}

}  // namespace

absl::StatusOr<TrainingSource> ReadTrainingSource(const Field& data, std::string_view inline_key,
                                                  const ReadRow& read_row) {
  RETURN_IF_ERROR(data.CheckMap());
  TrainingSource source;
  const Field name = data.FirstOf({"dataset_name", "url"});
  if (data["jsonl"].present() || data["jsonl_path"].present()) {
    ASSIGN_OR_RETURN(source.from, ReadJsonlBlock(data));
  } else if (name.present()) {
    ASSIGN_OR_RETURN(source.from, ReadDataSet(data, name, data.FirstOf({"config_name", "name"})));
  } else if (data[inline_key].present()) {
    ASSIGN_OR_RETURN(source.from, ReadInline(data[inline_key], read_row));
  } else if (!data.present() || data.json().empty()) {
    return data.Error("required");
  } else {
    return data.Error(absl::StrCat("expected one of jsonl, dataset_name and ", ToAbsl(inline_key),
                                   ", got none of them"));
  }
  if (data["max_samples"].present()) {
    ASSIGN_OR_RETURN(source.max_samples, data["max_samples"].Int(1));
  }
  return source;
}

absl::StatusOr<Table> LoadTrainingSource(const TrainingSource& source, const DataContext& context) {
  Table table;
  std::string path;
  if (const auto* rows = std::get_if<InlineRows>(&source.from)) {
    table = rows->rows;
    path = rows->path;
  } else if (const auto* file = std::get_if<JsonlFile>(&source.from)) {
    ASSIGN_OR_RETURN(table, LoadJsonl(*file, context));
    path = file->path;
  } else {
    const DataSet& data_set = std::get<DataSet>(source.from);
    ASSIGN_OR_RETURN(table, LoadDataSet(data_set, context));
    path = data_set.path;
  }
  if (table.rows.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected at least one row, got none"));
  }
  if (source.max_samples && table.rows.size() > static_cast<uint64_t>(*source.max_samples)) {
    table.rows.resize(static_cast<size_t>(*source.max_samples));
  }
  return table;
}

}  // namespace flowmesh::data
