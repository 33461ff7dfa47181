#include "executors/hub/hub.h"

#include <algorithm>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "common/clock.h"
#include "common/fetch/file_lock.h"
#include "common/fetch/inner_path.h"
#include "common/field.h"
#include "common/files.h"
#include "common/http.h"
#include "common/json.h"
#include "common/redact.h"
#include "common/strings.h"

namespace flowmesh::hub {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kTimeout = absl::Seconds(60);

std::string FirstSet(const EnvLookup& env, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const std::string value(Trim(env(name).value_or("")));
    if (!value.empty()) return value;
  }
  return "";
}

// A path inside of a URL; slashes stay.
std::string EscapePath(std::string_view path) { return PercentEncoded(path, "/"); }

// An ETag as a file name: without weakness and quotes.
std::string BlobNameOf(const HttpResponse& head) {
  std::string etag = head.Header("x-linked-etag");
  if (etag.empty()) etag = head.Header("etag");
  absl::string_view name = etag;
  absl::ConsumePrefix(&name, "W/");
  if (absl::ConsumePrefix(&name, "\"")) absl::ConsumeSuffix(&name, "\"");
  return std::string(name);
}

bool IsSha256(std::string_view name) {
  return name.size() == 64 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isxdigit(c); });
}

// Links `snapshot/file` to the blob, in place of what was there.
absl::Status LinkBlob(const fs::path& snapshot, const std::string& file, const fs::path& blob) {
  const fs::path link = snapshot / file;
  RETURN_IF_ERROR(MakeDirectories(link.parent_path()));
  const fs::path temporary = DotName(link);
  std::error_code error;
  fs::create_symlink(blob.lexically_relative(link.parent_path()), temporary, error);
  if (!error) fs::rename(temporary, link, error);
  if (!error) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cannot link ", link.string(), ": ", error.message()));
}

absl::StatusOr<Listing> ParseListing(const std::string& text) {
  ASSIGN_OR_RETURN(const Json document, ParseJson(text));
  const Field root(&document, "");
  Listing listing;
  ASSIGN_OR_RETURN(listing.commit, root["sha"].NonEmptyString());
  if (!IsPlainFileName(listing.commit)) return root["sha"].Expected("a commit");
  const Field siblings = root["siblings"];
  RETURN_IF_ERROR(siblings.CheckList());
  for (size_t i = 0; i < siblings.size(); ++i) {
    ASSIGN_OR_RETURN(std::string file, siblings[i]["rfilename"].NonEmptyString());
    const auto parts = InnerPath(file);
    if (!parts || parts->empty()) {
      return siblings[i]["rfilename"].Expected("a path inside the repository");
    }
    listing.files.push_back(std::move(file));
  }
  return listing;
}

}  // namespace

bool IsHubId(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return IsPlainFileName(text);
  return IsPlainFileName(text.substr(0, slash)) && IsPlainFileName(text.substr(slash + 1));
}

bool IsRevision(std::string_view text) {
  const fs::path path(text);
  return !text.empty() && std::all_of(path.begin(), path.end(), [](const fs::path& part) {
    return IsPlainFileName(part.string());
  });
}

fs::path ExpandHome(const std::string& path, const EnvLookup& env) {
  const fs::path home = env("HOME").value_or("/");
  if (path == "~") return home;
  if (absl::StartsWith(path, "~/")) return home / path.substr(2);
  return path;
}

Settings Settings::FromEnv(const EnvLookup& env, const std::string& download_dir) {
  Settings settings;
  if (!download_dir.empty()) {
    settings.cache = ExpandHome(download_dir, env);
  } else if (const std::string cache = FirstSet(env, {"HF_HUB_CACHE"}); !cache.empty()) {
    settings.cache = ExpandHome(cache, env);
  } else {
    const std::string home = FirstSet(env, {"HF_HOME"});
    settings.cache = ExpandHome(home.empty() ? "~/.cache/huggingface" : home, env) / "hub";
  }
  settings.endpoint = FirstSet(env, {"HF_ENDPOINT"});
  if (settings.endpoint.empty()) settings.endpoint = "https://huggingface.co";
  while (absl::EndsWith(settings.endpoint, "/")) settings.endpoint.pop_back();
  settings.token = FirstSet(env, {"HF_TOKEN"});
  const std::string offline = ToLower(FirstSet(env, {"HF_HUB_OFFLINE"}));
  settings.offline = offline == "1" || offline == "true" || offline == "yes" || offline == "on";
  return settings;
}

Hub::Hub(Settings settings, Callbacks callbacks)
    : settings_(std::move(settings)), callbacks_(std::move(callbacks)) {}

fs::path Hub::CacheFolder(const Repository& repository) const {
  const char* kind = repository.kind == Kind::kModel ? "models--" : "datasets--";
  return settings_.cache / absl::StrCat(kind, absl::StrReplaceAll(repository.id, {{"/", "--"}}));
}

absl::StatusOr<fs::path> Hub::FindCached(const Repository& repository) const {
  std::error_code ignored;
  const fs::path folder = CacheFolder(repository);
  std::string commit = repository.revision;
  if (auto text = ReadFile(folder / "refs" / repository.revision, 4096); text.ok()) {
    commit = std::string(Trim(*text));
  }
  const fs::path snapshot = folder / "snapshots" / commit;
  if (IsPlainFileName(commit) && fs::is_directory(snapshot, ignored)) return snapshot;
  if (!fs::is_directory(folder, ignored)) return absl::NotFoundError("not in the cache");
  return absl::NotFoundError(
      absl::StrCat("the cache does not hold revision ", repository.revision));
}

absl::Status Hub::WithHint(const absl::Status& status) const {
  if (!absl::IsPermissionDenied(status)) return status;
  return absl::PermissionDeniedError(absl::StrCat(
      status.message(), "; the repository may be private, gated or absent: ",
      settings_.token.empty() ? "HF_TOKEN is not set" : "HF_TOKEN is set but not accepted"));
}

Downloader Hub::MakeDownloader() const {
  return Downloader({.token = settings_.token,
                     .token_urls = {settings_.endpoint},
                     .retry_limit = callbacks_.retry_limit,
                     .on_retry = callbacks_.on_retry},
                    Clock::Real());
}

absl::StatusOr<Listing> Hub::List(const Repository& repository) {
  if (settings_.offline) {
    return absl::FailedPreconditionError("the hub is not asked: HF_HUB_OFFLINE is set");
  }
  const std::string url = absl::StrCat(
      settings_.endpoint, repository.kind == Kind::kModel ? "/api/models/" : "/api/datasets/",
      EscapePath(repository.id), "/revision/", PercentEncoded(repository.revision));
  const TempDir folder;
  Downloader downloader = MakeDownloader();
  const DownloadRequest request{.url = url, .to = folder / "listing.json", .timeout = kTimeout};
  RETURN_IF_ERROR(WithHint(downloader.Download(request, callbacks_.is_cancelled).status()));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(request.to));
  auto listing = ParseListing(text);
  if (listing.ok()) return listing;
  return absl::UnknownError(
      absl::StrCat(url, ": not an answer of a hub: ", listing.status().message()));
}

absl::StatusOr<std::string> Hub::BlobName(const std::string& url) {
  const std::string what = absl::StrCat("HEAD ", ShownUrl(url));
  HttpClient client;
  HttpRequest request{.method = "HEAD", .url = url, .timeout = kTimeout, .max_redirects = 0};
  request.cancelled = callbacks_.is_cancelled;
  for (int redirects = 0; redirects <= 5;) {
    request.headers.clear();
    if (!settings_.token.empty() && UrlOrigin(request.url) == UrlOrigin(settings_.endpoint)) {
      request.headers.emplace_back("Authorization", "Bearer " + settings_.token);
    }
    const absl::StatusOr<HttpResponse> head =
        SendWithRetries(client, request, callbacks_.retry_limit, Clock::Real(),
                        absl::InfiniteDuration(), callbacks_.on_retry);
    if (!head.ok()) return Annotate(head.status(), what);
    const bool is_redirect = head->status >= 300 && head->status < 400;
    if (is_redirect && head->Header("x-linked-etag").empty()) {
      request.url = ResolveUrl(request.url, head->Header("location"));
      ++redirects;
      continue;
    }
    const std::string text = absl::StrCat(what, ": status ", head->status);
    if (head->status == 401 || head->status == 403) {
      return WithHint(absl::PermissionDeniedError(text));
    }
    if (head->status == 404) return absl::NotFoundError(text);
    if (head->status >= 400) return absl::UnknownError(text);
    std::string name = BlobNameOf(*head);
    if (IsPlainFileName(name)) return name;
    return absl::UnknownError(absl::StrCat(what, ": the answer has no usable ETag"));
  }
  return absl::UnavailableError(absl::StrCat(what, ": more than 5 redirects"));
}

absl::StatusOr<std::string> Hub::FetchBlob(const Repository& repository, const std::string& commit,
                                           const std::string& file) {
  const std::string url = absl::StrCat(
      settings_.endpoint, repository.kind == Kind::kModel ? "/" : "/datasets/",
      EscapePath(repository.id), "/resolve/", PercentEncoded(commit), "/", EscapePath(file));
  ASSIGN_OR_RETURN(std::string name, BlobName(url));
  const fs::path blob = CacheFolder(repository) / "blobs" / name;
  std::error_code ignored;
  if (fs::exists(blob, ignored)) return name;
  if (callbacks_.on_file) callbacks_.on_file(file);
  RETURN_IF_ERROR(MakeDirectories(blob.parent_path()));
  Downloader downloader = MakeDownloader();
  DownloadRequest request{.url = url, .to = blob, .timeout = kTimeout};
  if (callbacks_.on_progress) {
    request.on_progress = [&](uint64_t done, uint64_t total) {
      callbacks_.on_progress(file, done, total);
    };
  }
  if (IsSha256(name)) request.sha256 = name;  // what the hub names large files by
  RETURN_IF_ERROR(WithHint(downloader.Download(request, callbacks_.is_cancelled).status()));
  return name;
}

absl::StatusOr<fs::path> Hub::Fetch(const Repository& repository, const Listing& listing,
                                    const std::vector<std::string>& files) {
  const fs::path folder = CacheFolder(repository);
  const fs::path snapshot = folder / "snapshots" / listing.commit;
  std::error_code ignored;
  const auto is_there = [&](const std::string& file) {
    return fs::exists(snapshot / file, ignored);
  };
  // Needs no writing: the cache may be mounted read-only.
  if (const auto cached = FindCached(repository);
      cached.ok() && *cached == snapshot && std::all_of(files.begin(), files.end(), is_there)) {
    return snapshot;
  }
  const fs::path lock_path = settings_.cache / ".locks" / folder.filename() / "flowmesh.lock";
  ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(lock_path, callbacks_.is_cancelled));
  std::vector<std::pair<std::string, std::string>> links;
  for (const std::string& file : files) {
    if (is_there(file)) continue;
    ASSIGN_OR_RETURN(std::string blob, FetchBlob(repository, listing.commit, file));
    links.emplace_back(file, std::move(blob));
  }
  for (const auto& [file, blob] : links) {
    RETURN_IF_ERROR(LinkBlob(snapshot, file, folder / "blobs" / blob));
  }
  RETURN_IF_ERROR(MakeDirectories(snapshot));
  if (repository.revision != listing.commit) {
    const fs::path reference = folder / "refs" / repository.revision;
    RETURN_IF_ERROR(MakeDirectories(reference.parent_path()));
    RETURN_IF_ERROR(WriteFileAtomically(reference, listing.commit));
  }
  return snapshot;
}

}  // namespace flowmesh::hub
