// An HTTP(S) client over libcurl. Blocking; one request per call; a client reuses its connections.
#pragma once

#include <sys/socket.h>

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

struct HttpResponse {
  int status = 0;
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string url;  // of the request, or where redirects have led

  std::string Header(std::string_view name) const;  // first value, empty when absent
};

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
  // Instead of HttpResponse::body: gets the pieces of an answer whose status is below 300, with
  // that status and the headers. An error ends the transfer and is what Send returns.
  std::function<absl::Status(const HttpResponse& head, std::string_view piece)> on_body;
  // Bounds the connect and each silent period, not the whole transfer.
  absl::Duration timeout = absl::Seconds(15);
  // Bounds the whole transfer, redirects included; infinite by default.
  absl::Duration total_timeout = absl::InfiniteDuration();
  // Followed with the same method and body; to another origin go only headers that say nothing of
  // who asks (IsOrdinaryHeader). 0: a redirect is the answer.
  int max_redirects = 5;
  bool stays_at_origin = false;             // a redirect to another one is the answer
  uint64_t max_response_bytes = 64u << 20;  // of HttpResponse::body
  // For answers of which the status is what counts: the first so many bytes of the body are kept,
  // and the rest is dropped. One that is longer than max_response_bytes, or not over `timeout`
  // after the last byte was sent, is taken as it is once its headers are there.
  std::optional<uint64_t> keep_response_bytes;
  // Asked before the body's next bytes leave, with how many could; waits as it likes and says how
  // many may. 0 ends the transfer with Cancelled.
  std::function<size_t(size_t bytes)> pace;
  std::function<bool()> cancelled;  // polled; true ends the transfer with Cancelled
  // Asked for each address before it is connected to, after DNS and for each redirect; none that
  // may be: PermissionDenied. Given, no kept connection is used and no proxy of the environment,
  // unless `may_use_proxy`: then it is asked for the proxy's address, and for a host that is one.
  std::function<bool(const sockaddr& address)> may_connect;
  bool may_use_proxy = false;
  // A file in PEM with authorities whose certificates of servers count, beside those of the system.
  std::string ca_file;
  bool may_reuse_connection = false;  // all requests of the client have the same may_connect

  // `name` in lower case.
  bool HasHeader(std::string_view name) const;
};

// `scheme://host:port` of a URL with the default port made explicit; empty when it is no http(s)
// URL.
std::string UrlOrigin(std::string_view url);

// `text` with all but letters, digits, `-_.~` and what is in `also` as %XX: a part of a path or a
// value of a query.
std::string PercentEncoded(std::string_view text, std::string_view also = "");

// Whether a failure of Send hardly goes away by itself: the host's name cannot be resolved, or its
// certificate is not accepted.
bool IsLasting(const absl::Status& failure);

// Whether a header of a request, by its name, describes the request and not who sends it.
bool IsOrdinaryHeader(std::string_view name);

// The URL of a Location header, resolved against the request's; empty when it is none.
std::string ResolveUrl(const std::string& base, const std::string& location);

// Not thread-safe: one per thread.
class HttpClient {
 public:
  HttpClient();
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Any HTTP status is an answer. InvalidArgument: no http(s) URL. Unavailable: network, TLS, too
  // many redirects, a body shorter than its Content-Length. DataLoss: with on_body, one longer than
  // that, as far as it was received. DeadlineExceeded: a time limit. ResourceExhausted: the answer
  // or its headers are too large. PermissionDenied: by may_connect. Cancelled.
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request);

 private:
  // Without following redirects. `left`: of the total timeout.
  absl::StatusOr<HttpResponse> SendOnce(const HttpRequest& request, absl::Duration left);

  void* curl_;
};

}  // namespace flowmesh
