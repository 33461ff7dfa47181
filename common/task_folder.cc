#include "common/task_folder.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace fs = std::filesystem;
namespace {

struct Totals {
  uint64_t size = 0;
  uint64_t files = 0;
};

// Whether a name may be looked at: relative, and without a way up.
bool IsInside(const fs::path& name) {
  return name.is_relative() &&
         std::none_of(name.begin(), name.end(), [](const fs::path& part) { return part == ".."; });
}

// Python's Path.suffix: `.hid`, `a.` and `plain` have none.
bool HasSuffix(const std::string& file_name) {
  const size_t dot = file_name.rfind('.');
  return dot != std::string::npos && dot > 0 && dot + 1 < file_name.size();
}

bool IsOrIsBelow(const std::string& name, const std::string& folder) {
  return name == folder || name.rfind(folder + "/", 0) == 0;
}

const char* TypeOf(const std::string& name) {
  if (name == kResponsesFile) return "result";
  if (IsOrIsBelow(name, kLogsDir)) return "logs";
  if (IsOrIsBelow(name, kArtifactsDir) || HasSuffix(fs::path(name).filename().string())) {
    return "artifact";
  }
  return "directory";
}

// What stands at `name` in `dir`, symbolic links followed as long as they stay inside; nothing when
// there is nothing that may be looked at.
std::optional<struct stat> Look(const fs::path& dir, const std::string& name) {
  struct stat info;
  const fs::path path = dir / name;
  if (!IsInside(name) || ::lstat(path.c_str(), &info) != 0) return std::nullopt;
  // A link may also stand on the way to it.
  if (S_ISLNK(info.st_mode) || name.find('/') != std::string::npos) {
    std::error_code error;
    const fs::path root = fs::canonical(dir, error), target = fs::canonical(path, error);
    if (error ||
        std::mismatch(root.begin(), root.end(), target.begin(), target.end()).first != root.end()) {
      return std::nullopt;
    }
    if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  }
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return std::nullopt;
  return info;
}

Totals Count(const fs::path& dir) {
  Totals totals;
  std::error_code error;
  for (fs::recursive_directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    if (it->symlink_status(error).type() != fs::file_type::regular) continue;
    const uint64_t size = it->file_size(error);
    if (error) continue;  // gone since it was listed
    totals.size += size;
    ++totals.files;
  }
  return totals;
}

Json Entry(const fs::path& dir, const std::string& name, bool required, const std::string& now,
           const KnownFiles& known) {
  Json entry = {{"name", name}, {"path", name}, {"type", TypeOf(name)}, {"required", required}};
  const auto add_file = [&](uint64_t size, const std::string& sha256) {
    entry["status"] = "present";
    entry["updated_at"] = now;
    entry["size"] = size;
    entry["sha256"] = sha256;
  };
  if (const auto digest = known.find(name); digest != known.end()) {
    add_file(digest->second.size, digest->second.sha256);
    return entry;
  }
  const std::optional<struct stat> info = Look(dir, name);
  entry["status"] = "missing";
  if (!info) return entry;
  if (S_ISREG(info->st_mode)) {
    const absl::StatusOr<std::string> sha256 = Sha256OfFile(dir / name);
    if (sha256.ok()) add_file(static_cast<uint64_t>(info->st_size), *sha256);
    return entry;
  }
  const Totals totals = Count(dir / name);
  entry["status"] = "present";
  entry["updated_at"] = now;
  entry["size"] = totals.size;
  entry["file_count"] = totals.files;
  return entry;
}

}  // namespace

std::string_view ArtifactName(std::string_view declared) {
  std::string_view name = Trim(declared);
  while (name.substr(0, 2) == "./") name.remove_prefix(2);
  while (name.size() > 1 && name.back() == '/') name.remove_suffix(1);
  return name == "." ? "" : name;
}

Json MakeManifest(const fs::path& dir, const std::string& task_id,
                  const std::vector<std::string>& artifacts, absl::Time now,
                  const KnownFiles& known) {
  std::set<std::string> required(artifacts.begin(), artifacts.end());
  required.insert({kResponsesFile, kLogsDir, kArtifactsDir});
  std::set<std::string> others;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    std::string name = entry.path().filename().string();
    if (name != kManifestFile && !required.contains(name)) others.insert(std::move(name));
  }
  const std::string time = FormatTimestamp(now);
  Json entries = Json::array();
  for (const std::string& name : required) entries.push_back(Entry(dir, name, true, time, known));
  for (const std::string& name : others) entries.push_back(Entry(dir, name, false, time, known));
  return {{"task_id", task_id}, {"generated_at", time}, {"entries", std::move(entries)}};
}

absl::Status WriteResultFiles(const fs::path& dir, const std::string& task_id,
                              const std::vector<std::string>& artifacts, const Clock& clock,
                              const std::optional<std::string>& responses) {
  std::vector<FileToWrite> files;
  KnownFiles known;
  if (responses) {
    files.push_back({dir / kResponsesFile, *responses});
    known[kResponsesFile] = {.size = responses->size(), .sha256 = Sha256Hex(*responses)};
  }
  const std::string manifest =
      DumpJson(MakeManifest(dir, task_id, artifacts, clock.Now(), known), 2);
  files.push_back({dir / kManifestFile, manifest});
  return WriteFilesAtomically(files);
}

}  // namespace flowmesh
