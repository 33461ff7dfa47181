// An HTTP(S) client over libcurl. Blocking; one request per call; a client reuses its connections.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/status.h"

namespace flowmesh {

struct HttpRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;  // sent when not empty, or for POST, PUT, PATCH
  // Instead of `body`: multipart/form-data with one part streamed from disk, length known
  // beforehand.
  struct FilePart {
    std::filesystem::path path;
    std::string field_name = "file";
    std::string file_name;
    std::string content_type;
  };
  std::optional<FilePart> file_part;
  // Instead of HttpResponse::body: the answer (status below 300) goes into this file.
  std::filesystem::path download_to;
  // Bounds the connect and each silent period, not the whole transfer.
  absl::Duration timeout = absl::Seconds(15);
  // Bounds the whole transfer; infinite by default.
  absl::Duration total_timeout = absl::InfiniteDuration();
  int max_redirects = 5;                    // followed with the same method and body; Authorization
                                            // is not sent to another origin
  uint64_t max_response_bytes = 64u << 20;  // of HttpResponse::body
  double max_send_bytes_per_second = 0;     // 0: unlimited
  std::function<bool()> cancelled;          // polled; true ends the transfer with Cancelled
};

struct HttpResponse {
  int status = 0;
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;

  std::string Header(std::string_view name) const;  // first value, empty when absent
};

// `scheme://host:port` of a URL with the default port made explicit; empty when it is no http(s)
// URL.
std::string UrlOrigin(std::string_view url);

// Not thread-safe: one per thread.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Any HTTP status is an answer. InvalidArgument: no http(s) URL. Unavailable: network, TLS, too
  // many redirects, a body shorter than its Content-Length. DeadlineExceeded: a time limit.
  // ResourceExhausted: the answer is too large. Cancelled.
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request);

 private:
  absl::StatusOr<HttpResponse> SendOnce(const HttpRequest& request);  // without following redirects

  void* curl_;
};

}  // namespace flowmesh
