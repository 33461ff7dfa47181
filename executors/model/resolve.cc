#include "executors/model/resolve.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

fs::path HomeDirectory(const EnvLookup& env) { return env("HOME").value_or("/"); }

fs::path ExpandHome(const std::string& path, const EnvLookup& env) {
  if (path == "~") return HomeDirectory(env);
  if (absl::StartsWith(path, "~/")) return HomeDirectory(env) / path.substr(2);
  return path;
}

bool IsExplicitPath(const std::string& identifier) {
  for (const char* start : {"/", "./", "../", "~"}) {
    if (absl::StartsWith(identifier, start)) return true;
  }
  return identifier == "." || identifier == "..";
}

// `name` or `organisation/name`.
bool IsHubId(const std::string& identifier) {
  const size_t slash = identifier.find('/');
  if (slash == std::string::npos) return IsPlainFileName(identifier);
  return IsPlainFileName(identifier.substr(0, slash)) &&
         IsPlainFileName(identifier.substr(slash + 1));
}

// Branches may hold slashes (`refs/pr/1`), but no step upwards.
bool IsRevision(const std::string& revision) {
  for (const fs::path& part : fs::path(revision)) {
    if (!IsPlainFileName(part.string())) return false;
  }
  return true;
}

fs::path CacheRoot(const std::string& download_dir, const EnvLookup& env) {
  if (!download_dir.empty()) return ExpandHome(download_dir, env);
  if (const auto cache = env("HF_HUB_CACHE"); cache && !cache->empty()) {
    return ExpandHome(*cache, env);
  }
  if (const auto home = env("HF_HOME"); home && !home->empty()) {
    return ExpandHome(*home, env) / "hub";
  }
  return HomeDirectory(env) / ".cache/huggingface/hub";
}

// The snapshot folder of a revision: named by a file in refs/, or a commit itself.
absl::StatusOr<fs::path> FindSnapshot(const fs::path& repository, const std::string& revision) {
  std::error_code ignored;
  std::string commit = revision;
  if (auto text = ReadFile(repository / "refs" / revision, 4096); text.ok()) {
    commit = std::string(Trim(*text));
  }
  const fs::path snapshot = repository / "snapshots" / commit;
  if (IsPlainFileName(commit) && fs::is_directory(snapshot, ignored)) return snapshot;
  if (!fs::is_directory(repository, ignored)) return absl::NotFoundError("not in the cache");
  return absl::NotFoundError(absl::StrCat("the cache does not hold revision ", revision));
}

}  // namespace

absl::StatusOr<fs::path> ResolveModel(const std::string& identifier, const std::string& revision,
                                      const std::string& download_dir, const EnvLookup& env) {
  if (Trim(identifier).empty()) {
    return absl::InvalidArgumentError("the model's identifier is empty");
  }
  const fs::path local = ExpandHome(identifier, env);
  std::error_code ignored;
  if (fs::exists(local, ignored)) return local;
  if (IsExplicitPath(identifier) || absl::EndsWith(identifier, ".gguf")) {
    return absl::NotFoundError(absl::StrCat("no such model: ", local.string(), " does not exist"));
  }
  if (!IsHubId(identifier)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", identifier, "\" is neither a path that exists nor a hub id (organisation/name)"));
  }
  const std::string wanted = revision.empty() ? "main" : revision;
  if (!IsRevision(wanted)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", wanted, "\" is no revision"));
  }
  std::string folder = absl::StrCat("models--", identifier);
  if (const size_t slash = folder.find('/'); slash != std::string::npos) {
    folder.replace(slash, 1, "--");
  }
  const fs::path repository = CacheRoot(download_dir, env) / folder;
  auto snapshot = FindSnapshot(repository, wanted);
  if (snapshot.ok()) return snapshot;
  return absl::NotFoundError(
      absl::StrCat("model \"", identifier, "\" (revision ", wanted,
                   ") was not found: no folder or file ", fs::absolute(local, ignored).string(),
                   "; ", repository.string(), ": ", Message(snapshot.status()),
                   "; this worker does not download from the hub: copy the model "
                   "to one of these places"));
}

}  // namespace flowmesh::model
