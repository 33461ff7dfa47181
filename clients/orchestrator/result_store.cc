#include "clients/orchestrator/result_store.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/task_folder.h"

namespace flowmesh::orchestrator {
namespace fs = std::filesystem;
namespace {

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

bool IsBareFileName(std::string_view name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

absl::StatusOr<fs::path> ResultStore::StoreResult(const std::string& task_id, const Json& document,
                                                  const std::vector<std::string>& artifacts) const {
  const fs::path folder = Folder(task_id);
  RETURN_IF_ERROR(MakeDirectories(folder / kArtifactsDir));
  RETURN_IF_ERROR(MakeDirectories(folder / kLogsDir));
  std::vector<std::string> required;
  for (const std::string& declared : artifacts) {
    const std::string_view name = ArtifactName(declared);
    if (!name.empty()) required.emplace_back(name);
  }
  RETURN_IF_ERROR(WriteResultFiles(folder, task_id, required, clock_, DumpJson(document, 2)));
  return folder / kResponsesFile;
}

bool ResultStore::HasResult(std::string_view task_id) const {
  std::error_code error;
  return fs::is_regular_file(Folder(task_id) / kResponsesFile, error);
}

absl::StatusOr<std::string> ResultStore::LoadResultText(std::string_view task_id) const {
  return ReadFile(Folder(task_id) / kResponsesFile);
}

absl::StatusOr<Json> ResultStore::LoadResult(std::string_view task_id) const {
  ASSIGN_OR_RETURN(const std::string text, LoadResultText(task_id));
  return ParseJson(text);
}

absl::StatusOr<DotFile> ResultStore::BeginUpload(std::string_view task_id,
                                                 std::string_view name) const {
  const fs::path folder = Folder(task_id) / kArtifactsDir;
  RETURN_IF_ERROR(MakeDirectories(folder));
  return DotFile::Create(folder / name);
}

absl::StatusOr<fs::path> ResultStore::FindFile(std::string_view task_id,
                                               std::string_view name) const {
  const fs::path folder = Folder(task_id);
  for (const std::string& place :
       {absl::StrCat(kArtifactsDir, "/", ToAbsl(name)), std::string(name)}) {
    std::error_code error;
    if (IsInside(folder, place) && fs::is_regular_file(folder / place, error)) {
      return folder / place;
    }
  }
  return absl::NotFoundError(absl::StrCat("no file ", ToAbsl(name)));
}

}  // namespace flowmesh::orchestrator
