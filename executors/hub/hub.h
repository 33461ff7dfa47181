// The Hugging Face hub and its cache on disk, for models and data sets alike (TASKS.md 5.6).
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/env.h"
#include "common/fetch/downloader.h"
#include "common/retry.h"
#include "common/status.h"

namespace flowmesh::hub {

enum class Kind { kModel, kDataSet };

// A repository at a branch, tag or commit.
struct Repository {
  Kind kind = Kind::kModel;
  std::string id;  // `name` or `organisation/name`
  std::string revision = "main";
};

// Whether a text has the form of a hub id, of a revision (branches may hold slashes, but no step
// upwards).
bool IsHubId(std::string_view text);
bool IsRevision(std::string_view text);

// `~` and `~/...` by HOME.
std::filesystem::path ExpandHome(const std::string& path, const EnvLookup& env);

struct Settings {
  std::filesystem::path cache;
  std::string endpoint;
  std::string token;  // secret; sent to the endpoint's own origin only
  bool offline = false;

  // From HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE. `download_dir`: the cache
  // instead, when it is not empty.
  static Settings FromEnv(const EnvLookup& env, const std::string& download_dir = "");
};

// What a download may use. The callbacks may be null; they are called from the calling thread.
struct Callbacks {
  std::function<bool()> is_cancelled;
  std::function<void(const std::string& file)> on_file;  // before its download begins
  // As its bytes come; `total` 0: unknown.
  std::function<void(const std::string& file, uint64_t done, uint64_t total)> on_progress;
  Retries::OnRetry on_retry;                        // null: the log
  absl::Duration retry_limit = absl::Seconds(300);  // of tries that bring nothing new
};

// The files of a repository at one commit.
struct Listing {
  std::string commit;
  std::vector<std::string> files;  // paths inside the repository, none leads out of it
};

// Not thread-safe. Several processes may use one cache: a lock file beside each repository lets one
// of them download at a time.
class Hub {
 public:
  explicit Hub(Settings settings, Callbacks callbacks = {});

  const Settings& settings() const { return settings_; }
  // The repository's folder in the cache, which may not exist.
  std::filesystem::path CacheFolder(const Repository& repository) const;

  // The snapshot in the cache that a reference or a commit names. NotFound says what is missing.
  absl::StatusOr<std::filesystem::path> FindCached(const Repository& repository) const;

  // Asks the hub. NotFound: no such repository or revision. PermissionDenied: with a hint at
  // HF_TOKEN. FailedPrecondition: offline. Unavailable, DeadlineExceeded, Cancelled.
  absl::StatusOr<Listing> List(const Repository& repository);

  // Brings `files` of the listing into the cache, those that it lacks, and returns their snapshot.
  // They appear in it when the last is there; then the revision's reference names the commit.
  // Errors as of List; DataLoss: a file's digest does not fit.
  absl::StatusOr<std::filesystem::path> Fetch(const Repository& repository, const Listing& listing,
                                              const std::vector<std::string>& files);

 private:
  Downloader MakeDownloader() const;
  absl::StatusOr<std::string> BlobName(const std::string& url);
  absl::StatusOr<std::string> FetchBlob(const Repository& repository, const std::string& commit,
                                        const std::string& file);
  absl::Status WithHint(const absl::Status& status) const;

  const Settings settings_;
  const Callbacks callbacks_;
};

}  // namespace flowmesh::hub
