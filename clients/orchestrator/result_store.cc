#include "clients/orchestrator/result_store.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace fs = std::filesystem;
namespace {

// `./final_model/` -> `final_model`.
std::string NormaliseArtifact(std::string_view name) {
  name = Trim(name);
  while (name.substr(0, 2) == "./") name.remove_prefix(2);
  while (!name.empty() && name.back() == '/') name.remove_suffix(1);
  return std::string(name);
}

// Whether something stands there that may be looked at: not what a name or a link on its way
// reaches outside the folder.
bool IsInside(const fs::path& folder, const std::string& name) {
  const fs::path path(name);
  if (name.empty() || path.is_absolute()) return false;
  std::error_code error;
  const fs::path root = fs::canonical(folder, error), target = fs::canonical(folder / path, error);
  return !error && std::find(path.begin(), path.end(), "..") == path.end() &&
         std::mismatch(root.begin(), root.end(), target.begin(), target.end()).first == root.end();
}

// Whether Python's PurePath.suffix of the last component is not empty.
bool HasSuffix(const std::string& name) {
  const std::string last = name.substr(name.rfind('/') + 1);
  const size_t dot = last.rfind('.');
  return dot != std::string::npos && dot > 0 && dot + 1 < last.size();
}

std::string EntryType(const std::string& name) {
  const std::string top = name.substr(0, name.find('/'));
  if (name == "responses.json") return "result";
  if (top == "logs") return "logs";
  return top == "artifacts" || HasSuffix(name) ? "artifact" : "directory";
}

void DescribeFolder(const fs::path& path, Json& entry) {
  uint64_t bytes = 0;
  uint64_t files = 0;
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(path, error); !error && it != fs::end(it);
       it.increment(error)) {
    std::error_code ignored;
    if (!it->is_regular_file(ignored) || it->is_symlink(ignored)) continue;
    const uint64_t size = it->file_size(ignored);
    if (!ignored) bytes += size;
    ++files;
  }
  entry["size"] = bytes;
  entry["file_count"] = files;
}

Json DescribeEntry(const fs::path& folder, const std::string& name, bool required, absl::Time now) {
  Json entry = {{"name", name}, {"path", name}, {"type", EntryType(name)}, {"required", required}};
  const fs::path path = folder / name;
  std::error_code error;
  if (!IsInside(folder, name) ||
      !(fs::is_regular_file(path, error) || fs::is_directory(path, error))) {
    entry["status"] = "missing";
    return entry;
  }
  entry["status"] = "present";
  entry["updated_at"] = FormatTimestamp(now);
  if (fs::is_directory(path, error)) {
    DescribeFolder(path, entry);
    return entry;
  }
  entry["size"] = fs::file_size(path, error);
  if (const absl::StatusOr<std::string> digest = Sha256OfFile(path); digest.ok()) {
    entry["sha256"] = *digest;
  }
  return entry;
}

}  // namespace

std::string FolderName(std::string_view task_id) {
  std::string name;
  for (const char c : task_id) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isalnum(byte) || c == '-' || c == '_') {
      name += c;
    } else if ((byte & 0xc0) != 0x80) {  // once per character, not per byte
      name += '_';
    }
  }
  return name;
}

Json BuildManifest(const fs::path& folder, std::string_view task_id,
                   const std::vector<std::string>& required, absl::Time now) {
  std::set<std::string> wanted = {"responses.json", "logs", "artifacts"};
  for (const std::string& name : required) wanted.insert(NormaliseArtifact(name));
  wanted.erase("");
  std::set<std::string> others;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::end(it);
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!wanted.contains(name) && name != "manifest.json" && name.front() != '.') {
      others.insert(name);
    }
  }
  Json entries = Json::array();
  for (const std::string& name : wanted) entries.push_back(DescribeEntry(folder, name, true, now));
  for (const std::string& name : others) entries.push_back(DescribeEntry(folder, name, false, now));
  return {{"task_id", task_id}, {"generated_at", FormatTimestamp(now)}, {"entries", entries}};
}

bool IsBareFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

absl::StatusOr<fs::path> ResultStore::StoreResult(const std::string& task_id, const Json& document,
                                                  const std::vector<std::string>& artifacts) const {
  const fs::path folder = Folder(task_id);
  RETURN_IF_ERROR(MakeDirectories(folder / "artifacts"));
  RETURN_IF_ERROR(MakeDirectories(folder / "logs"));
  fs::path path = folder / "responses.json";
  RETURN_IF_ERROR(WriteFileAtomically(path, DumpJson(document, 2)));
  const Json manifest = BuildManifest(folder, task_id, artifacts, clock_.Now());
  if (const absl::Status status =
          WriteFileAtomically(folder / "manifest.json", DumpJson(manifest, 2));
      !status.ok()) {
    LogWarning("manifest of task {} not written: {}", task_id, Message(status));
  }
  return path;
}

bool ResultStore::HasResult(std::string_view task_id) const {
  std::error_code error;
  return fs::is_regular_file(Folder(task_id) / "responses.json", error);
}

absl::StatusOr<std::string> ResultStore::LoadResultText(std::string_view task_id) const {
  return ReadFile(Folder(task_id) / "responses.json");
}

absl::StatusOr<Json> ResultStore::LoadResult(std::string_view task_id) const {
  ASSIGN_OR_RETURN(const std::string text, LoadResultText(task_id));
  return ParseJson(text);
}

absl::StatusOr<DotFile> ResultStore::BeginUpload(std::string_view task_id,
                                                 std::string_view name) const {
  const fs::path folder = Folder(task_id) / "artifacts";
  RETURN_IF_ERROR(MakeDirectories(folder));
  return DotFile::Create(folder / name);
}

absl::StatusOr<fs::path> ResultStore::FindFile(std::string_view task_id,
                                               std::string_view name) const {
  const fs::path folder = Folder(task_id);
  for (const std::string& place : {absl::StrCat("artifacts/", ToAbsl(name)), std::string(name)}) {
    std::error_code error;
    if (IsInside(folder, place) && fs::is_regular_file(folder / place, error)) {
      return folder / place;
    }
  }
  return absl::NotFoundError(absl::StrCat("no file ", ToAbsl(name)));
}

}  // namespace flowmesh::orchestrator
