// Files from other machines (PROTOCOL.md section 10).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/retry.h"
#include "common/status.h"

namespace flowmesh {

struct DownloaderOptions {
  // Secret. Added as a bearer token to requests without an Authorization of their own whose origin
  // is that of one of `token_urls`: the orchestrator's and the task's destination.
  std::string token;
  std::vector<std::string> token_urls;  // empty ones are unknown
  // When none is known, any host gets the token: for JSONL inputs only, as the reference does.
  bool token_without_origin = false;
  // How long tries go on that bring nothing new.
  absl::Duration retry_limit = absl::Seconds(300);
  Retries::OnRetry on_retry;  // null: the log
};

struct DownloadRequest {
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;  // values are secret
  std::filesystem::path to;                                  // its folder exists
  absl::Duration timeout = absl::Seconds(60);  // of the connect and each silent period
  std::optional<std::string> sha256;           // what the content must have; hex, any case
  uint64_t max_bytes = uint64_t{1} << 40;
  // Whether IsLinkLocal addresses are refused, also behind a redirect: of URLs that a task names.
  bool no_link_local = false;
  // Called from the downloading thread as bytes come; `total` 0: unknown. May be null.
  std::function<void(uint64_t done, uint64_t total)> on_progress;
};

struct DownloadedFile {
  uint64_t bytes = 0;
  std::string sha256;  // lower-case hex
};

// Not thread-safe: one per thread.
class Downloader {
 public:
  Downloader(DownloaderOptions options, const Clock& clock);

  // Fetches into a dot-named file, which gets its name, in place of an older file, when it is
  // whole: as long as was announced, with the wanted digest, and on disk. After a cut it goes on
  // where it was only when the server says that the file is still the same one. Leaves nothing
  // behind on failure. The text of a failure names the URL and holds no secret.
  //
  // Unavailable, DeadlineExceeded: the last try's failure when time was up. NotFound (404, 410),
  // PermissionDenied (401, 403), Unknown (other statuses). DataLoss: longer than announced, or
  // another digest. ResourceExhausted: too large, the disk is full. InvalidArgument: no http(s)
  // URL. Cancelled; `is_cancelled` is polled from this thread.
  absl::StatusOr<DownloadedFile> Download(const DownloadRequest& request,
                                          const std::function<bool()>& is_cancelled);

 private:
  class Partial;
  struct Answer {
    absl::Status status;
    bool retryable = false;
    std::optional<absl::Duration> retry_after;
  };

  HttpRequest RequestFor(const DownloadRequest& request,
                         const std::function<bool()>& is_cancelled) const;
  absl::Status Fetch(const std::string& what, HttpRequest request, Partial& partial,
                     const std::function<bool()>& is_cancelled);
  Answer FetchOnce(HttpRequest request, Partial& partial);

  const DownloaderOptions options_;
  const Clock& clock_;
  HttpClient client_;
};

}  // namespace flowmesh
