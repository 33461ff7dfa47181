#include "executors/model/resolve.h"

#include <algorithm>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field.h"
#include "common/json.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

using Names = std::vector<std::string>;

bool IsExplicitPath(const std::string& identifier) {
  for (const char* start : {"/", "./", "../", "~"}) {
    if (absl::StartsWith(identifier, start)) return true;
  }
  return identifier == "." || identifier == "..";
}

Names Having(const Names& files, std::string_view start, std::string_view end) {
  Names found;
  for (const std::string& file : files) {
    if (!absl::StrContains(file, "/") && absl::StartsWith(file, ToAbsl(start)) &&
        absl::EndsWith(file, ToAbsl(end))) {
      found.push_back(file);
    }
  }
  return found;
}

// What of a repository is a model's description: the texts at its top, and the configurations of
// modules below it (encoders have those; a dense one has weights too). Not the copies of the
// weights in other formats.
bool IsDescription(const std::string& file) {
  if (absl::EndsWith(file, "_Dense/model.safetensors")) return true;
  if (absl::EndsWith(file, "/config.json")) {
    return !absl::StartsWith(file, "onnx/") && !absl::StartsWith(file, "openvino/");
  }
  if (file == "additional_chat_templates/tool_use.jinja") return true;
  if (absl::StrContains(file, "/") || absl::StartsWith(file, ".")) return false;
  for (const char* end : {".json", ".txt", ".model", ".jinja"}) {
    if (absl::EndsWith(file, end)) return true;
  }
  return false;
}

// The files of a repository that a worker loads.
absl::StatusOr<Names> ModelFiles(const Names& all) {
  Names weights = Having(all, "model", ".safetensors");
  if (weights.empty()) weights = Having(all, "", ".safetensors");
  const Names gguf = Having(all, "", ".gguf");
  if (weights.empty() && gguf.size() == 1) weights = gguf;
  if (weights.empty()) {
    Names found = gguf;
    for (const char* end : {".bin", ".pt", ".h5", ".msgpack"}) {
      for (std::string& file : Having(all, "", end)) found.push_back(std::move(file));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("expected weights in *.safetensors or one .gguf file, got ",
                     found.empty() ? "none" : absl::StrJoin(found, ", "),
                     gguf.size() > 1 ? "; download one and give its path" : ""));
  }
  for (const std::string& file : all) {
    if (IsDescription(file)) weights.push_back(file);
  }
  return weights;
}

// Whether all files are there that an index of shards names. A broken one is for the loader.
bool HasShards(const fs::path& index) {
  const absl::StatusOr<Json> document = ReadJsonFile(index);
  if (!document.ok()) return true;
  std::error_code ignored;
  for (const auto& [tensor, file] : Field(&*document, "")["weight_map"].json().items()) {
    if (file.is_string() && !fs::exists(index.parent_path() / file.get<std::string>(), ignored)) {
      return false;
    }
  }
  return true;
}

// Other programs may have fetched a model's tokenizer only, or some of its shards.
bool HasWeights(const fs::path& snapshot) {
  std::error_code ignored;
  if (fs::exists(snapshot / "model.safetensors", ignored)) return true;
  bool found = false;
  for (const auto& entry : fs::directory_iterator(snapshot, ignored)) {
    const std::string extension = entry.path().extension();
    found |= extension == ".safetensors" || extension == ".gguf" || extension == ".bin";
    const bool is_index = absl::EndsWith(entry.path().string(), ".safetensors.index.json");
    if (is_index && !HasShards(entry.path())) return false;
  }
  return found;
}

absl::StatusOr<fs::path> Download(hub::Hub& hub, const hub::Repository& repository) {
  ASSIGN_OR_RETURN(const hub::Listing listing, hub.List(repository));
  ASSIGN_OR_RETURN(const Names files, ModelFiles(listing.files));
  return hub.Fetch(repository, listing, files);
}

}  // namespace

absl::StatusOr<fs::path> ResolveModel(const std::string& identifier, const std::string& revision,
                                      const std::string& download_dir, const EnvLookup& env,
                                      const hub::Callbacks& callbacks) {
  if (Trim(identifier).empty()) {
    return absl::InvalidArgumentError("the model's identifier is empty");
  }
  const fs::path local = hub::ExpandHome(identifier, env);
  std::error_code ignored;
  if (fs::exists(local, ignored)) return local;
  if (IsExplicitPath(identifier) || absl::EndsWith(identifier, ".gguf")) {
    return absl::NotFoundError(absl::StrCat("no such model: ", local.string(), " does not exist"));
  }
  if (!hub::IsHubId(identifier)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", identifier, "\" is neither a path that exists nor a hub id (organisation/name)"));
  }
  const hub::Repository repository{.kind = hub::Kind::kModel,
                                   .id = identifier,
                                   .revision = revision.empty() ? "main" : revision};
  if (!hub::IsRevision(repository.revision)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", repository.revision, "\" is no revision"));
  }
  hub::Hub hub(hub::Settings::FromEnv(env, download_dir), callbacks);
  const auto cached = hub.FindCached(repository);
  if (cached.ok() && (hub.settings().offline || HasWeights(*cached))) return cached;
  const auto downloaded = Download(hub, repository);
  if (downloaded.ok() || absl::IsCancelled(downloaded.status())) return downloaded;
  return absl::Status(
      downloaded.status().code(),
      absl::StrCat("model \"", identifier, "\" (revision ", repository.revision,
                   ") was not found: no folder or file ", fs::absolute(local, ignored).string(),
                   "; ", hub.CacheFolder(repository).string(), ": ",
                   cached.ok() ? "no weights, or not all" : Message(cached.status()), "; ",
                   ShownUrl(hub.settings().endpoint), ": ", downloaded.status().message()));
}

}  // namespace flowmesh::model
