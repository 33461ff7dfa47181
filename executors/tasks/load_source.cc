#include "executors/tasks/load_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/fetch/extract.h"
#include "common/http.h"
#include "common/strings.h"

namespace flowmesh::tasks {
namespace {

// A text, trimmed; an empty one is as good as none: it may come from a placeholder.
absl::StatusOr<LoadSource::Given> ReadGiven(const Field& field) {
  ASSIGN_OR_RETURN(const std::string text, field.StringOr(""));
  return LoadSource::Given{field.path(), std::string(Trim(text))};
}

absl::Status CheckUrl(const LoadSource::Given& url) {
  if (url.value.empty() || !UrlOrigin(url.value).empty()) return absl::OkStatus();
  // Its text is not shown: what looks like a mistyped URL may hold a password.
  return absl::InvalidArgumentError(absl::StrCat(url.field, ": expected an http or https URL"));
}

// The fields that checkpoints and adapters have in common.
absl::StatusOr<LoadSource> ReadSource(const Field& block) {
  LoadSource source{.field = block.path()};
  ASSIGN_OR_RETURN(source.task_id, ReadGiven(block.FirstOf({"taskId", "task_id"})));
  if (!source.task_id.value.empty() && !IsPlainFileName(source.task_id.value)) {
    return block.FirstOf({"taskId", "task_id"}).Expected("a task id");
  }
  ASSIGN_OR_RETURN(source.url, ReadGiven(block["url"]));
  RETURN_IF_ERROR(CheckUrl(source.url));
  ASSIGN_OR_RETURN(source.headers, data::ReadHeaders(block["headers"]));
  const Field format = block["archive_format"];
  ASSIGN_OR_RETURN(source.archive_format, ReadGiven(format));
  if (source.archive_format.value.empty()) source.archive_format.value = "auto";
  if (ToLower(source.archive_format.value) != "auto") {  // whether the word is known
    const auto known = ChooseArchiveFormat(source.archive_format.value, "", "");
    if (!known.ok()) return Annotate(known.status(), format.path());
  }
  return source;
}

absl::Status RequireOne(const LoadSource& source) {
  if (!source.path.value.empty() || !source.task_id.value.empty() || !source.url.value.empty()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(source.field, ": one of path, taskId or url is required"));
}

absl::StatusOr<AdapterSource> ReadAdapter(const Field& entry, size_t place) {
  AdapterSource adapter;
  const std::string fallback = absl::StrCat("lora_", place);
  ASSIGN_OR_RETURN(const auto name, ReadGiven(entry["name"]));
  ASSIGN_OR_RETURN(const auto id, ReadGiven(entry.FirstOf({"id", "adapter_id"})));
  adapter.name = !name.value.empty() ? name.value : !id.value.empty() ? id.value : fallback;
  adapter.folder = IsPlainFileName(adapter.name) ? adapter.name : fallback;
  ASSIGN_OR_RETURN(adapter.source, ReadSource(entry));
  ASSIGN_OR_RETURN(adapter.source.path, ReadGiven(entry["path"]));
  RETURN_IF_ERROR(RequireOne(adapter.source));
  ASSIGN_OR_RETURN(const std::string apply, entry["apply"].StringOr("runtime"));
  const std::string word = ToLower(Trim(apply));
  if (word != "runtime" && word != "merge") return entry["apply"].Expected("runtime or merge");
  adapter.merge = word == "merge";
  ASSIGN_OR_RETURN(adapter.scale, entry["scale"].NumberOr(1.0));
  return adapter;
}

}  // namespace

absl::StatusOr<std::optional<LoadSource>> ReadCheckpointLoad(const Field& spec) {
  RETURN_IF_ERROR(spec["checkpoint"].CheckMap());
  const Field block = spec["checkpoint"]["load"];
  RETURN_IF_ERROR(block.CheckMap());
  if (!block.present()) return std::nullopt;
  ASSIGN_OR_RETURN(const auto type, ReadGiven(block["type"]));
  const std::string word = ToLower(type.value);  // a hint, no more
  if (!word.empty() && word != "local" && word != "http") {
    return block["type"].Expected("local or http");
  }
  ASSIGN_OR_RETURN(LoadSource source, ReadSource(block));
  ASSIGN_OR_RETURN(source.path, ReadGiven(block.FirstOf({"path", "uri"})));
  RETURN_IF_ERROR(RequireOne(source));
  ASSIGN_OR_RETURN(source.timeout, data::ReadTimeout(block["timeoutSec"]));
  ASSIGN_OR_RETURN(const auto filename, ReadGiven(block["filename"]));
  if (!filename.value.empty() && !IsPlainFileName(filename.value)) {
    return block["filename"].Expected("a file name");
  }
  source.filename = filename.value;
  ASSIGN_OR_RETURN(const auto base_url, ReadGiven(block["base_url"]));
  RETURN_IF_ERROR(CheckUrl(base_url));
  source.base_url = base_url.value;
  ASSIGN_OR_RETURN(source.subdir, ReadGiven(block["subdir"]));
  return source;
}

absl::StatusOr<std::vector<AdapterSource>> ReadAdapters(
    const Field& adapters, const std::function<void(const std::string&)>& on_skipped) {
  RETURN_IF_ERROR(adapters.CheckList());
  std::vector<AdapterSource> result;
  for (size_t i = 0; i < adapters.size(); ++i) {
    const Field entry = adapters[i];
    if (!entry.present()) return entry.Expected("a map");
    RETURN_IF_ERROR(entry.CheckMap());
    ASSIGN_OR_RETURN(const std::string type, entry["type"].StringOr("lora"));
    if (ToLower(Trim(type)) != "lora") {
      on_skipped(absl::StrCat(entry.path(), ": skipped: its type is no lora"));
      continue;
    }
    ASSIGN_OR_RETURN(AdapterSource adapter, ReadAdapter(entry, i));
    // Names are free, folders are not.
    const bool is_taken =
        std::any_of(result.begin(), result.end(),
                    [&](const AdapterSource& other) { return other.folder == adapter.folder; });
    if (is_taken) adapter.folder = absl::StrCat(adapter.folder.substr(0, 150), ".", i);
    result.push_back(std::move(adapter));
  }
  return result;
}

}  // namespace flowmesh::tasks
