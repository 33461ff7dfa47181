#include "common/http.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <mutex>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/address_guard.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

// Marks a status that IsLasting knows.
constexpr char kLasting[] = "flowmesh/lasting";
constexpr size_t kMaxHeaderBytes = 256 << 10;

// One transfer: what libcurl's callbacks fill and watch.
struct Transfer {
  const HttpRequest* request = nullptr;
  HttpResponse response;
  absl::Status taken;  // by on_body
  size_t header_bytes = 0;
  uint64_t body_bytes = 0;
  bool head_is_whole = false;  // of the final answer
  bool enough = false;         // what came of the answer is all that is wanted of it
  bool headers_too_large = false;
  bool too_large = false;
  bool surplus = false;  // more came than the Content-Length says
  bool cancelled = false;
  bool unreadable = false;  // the file that is sent
  bool silent = false;
  std::string refused;  // the last address that may_connect refused
  absl::Duration begun, last_activity, last_sent;
  absl::Duration left = absl::InfiniteDuration();  // of the request's total timeout
  curl_off_t last_bytes = -1, last_bytes_up = -1;
};

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  if (transfer.request->on_body && transfer.response.status < 300) {
    transfer.taken = transfer.request->on_body(transfer.response, {data, bytes});
    return transfer.taken.ok() ? bytes : 0;
  }
  const std::optional<uint64_t> keep = transfer.request->keep_response_bytes;
  std::string& body = transfer.response.body;
  if (keep) body.append(data, std::min<uint64_t>(bytes, *keep - body.size()));
  transfer.body_bytes += bytes;
  if (transfer.body_bytes > transfer.request->max_response_bytes) {
    (keep ? transfer.enough : transfer.too_large) = true;
    return 0;
  }
  if (!keep) body.append(data, bytes);
  return bytes;
}

// What is sent: bytes from memory or from a file.
struct Upload {
  Transfer* transfer = nullptr;
  UniqueFd file;  // else `body`
  std::string_view body;
  uint64_t size = 0, offset = 0;
};

size_t OnRead(char* data, size_t size, size_t count, void* user) {
  auto& upload = *static_cast<Upload*>(user);
  size_t bytes = std::min<uint64_t>(size * count, upload.size - upload.offset);
  if (bytes == 0) return 0;
  if (const auto& pace = upload.transfer->request->pace) bytes = std::min(bytes, pace(bytes));
  if (bytes == 0) {
    upload.transfer->cancelled = true;
    return CURL_READFUNC_ABORT;
  }
  if (!upload.file.valid()) {
    bytes = upload.body.copy(data, bytes, upload.offset);
  } else {
    ssize_t n;
    do {
      n = ::pread(upload.file.get(), data, bytes, static_cast<off_t>(upload.offset));
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {  // it has become shorter
      upload.transfer->unreadable = true;
      return CURL_READFUNC_ABORT;
    }
    bytes = static_cast<size_t>(n);
  }
  upload.offset += bytes;
  return bytes;
}

// libcurl begins anew when a connection that it kept turns out to be closed.
int OnSeek(void* user, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<Upload*>(user)->offset = static_cast<uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

absl::Status OpenFile(const std::filesystem::path& path, Upload& upload) {
  upload.file = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info;
  if (!upload.file.valid() || ::fstat(upload.file.get(), &info) != 0) {
    return ErrnoError("cannot read", path);
  }
  upload.size = static_cast<uint64_t>(info.st_size);
  return absl::OkStatus();
}

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  auto& response = transfer.response;
  const std::string_view line(data, size * count);
  transfer.header_bytes += line.size();
  if (transfer.header_bytes > kMaxHeaderBytes) {
    transfer.headers_too_large = true;
    return 0;
  }
  if (line.substr(0, 5) == "HTTP/") {  // a new answer (after 100 Continue): forget the old headers
    response.headers.clear();
    transfer.head_is_whole = false;
    const size_t space = line.find(' ');
    if (space != std::string_view::npos) {
      (void)absl::SimpleAtoi(ToAbsl(line.substr(space + 1, 3)), &response.status);
    }
  } else if (const size_t colon = line.find(':'); colon != std::string_view::npos) {
    response.headers.emplace(ToLower(Trim(line.substr(0, colon))), Trim(line.substr(colon + 1)));
  } else if (Trim(line).empty()) {
    transfer.head_is_whole = response.status >= 200;
  }
  return size * count;
}

// libcurl drops what goes beyond the Content-Length and says so here only.
int OnTrace(CURL*, curl_infotype type, char* data, size_t size, void* user) {
  constexpr std::string_view kSurplus = "Excess found";
  if (type == CURLINFO_TEXT &&
      std::string_view(data, size).substr(0, kSurplus.size()) == kSurplus) {
    static_cast<Transfer*>(user)->surplus = true;
  }
  return 0;
}

// Ends a transfer that was cancelled, or in which nothing moved for the request's timeout, or whose
// answer is long in coming when little is wanted of it.
int OnProgress(void* user, curl_off_t, curl_off_t down, curl_off_t, curl_off_t up) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (transfer.request->cancelled && transfer.request->cancelled()) {
    transfer.cancelled = true;
    return 1;
  }
  const absl::Duration now = Clock::Real().Monotonic();
  if (up != transfer.last_bytes_up) {
    transfer.last_bytes_up = up;
    transfer.last_sent = now;
  }
  if (down + up != transfer.last_bytes) {
    transfer.last_bytes = down + up;
    transfer.last_activity = now;
  }
  const bool is_short = transfer.request->keep_response_bytes.has_value();
  const absl::Duration since = is_short ? transfer.last_sent : transfer.last_activity;
  if (now - since <= transfer.request->timeout) return 0;
  transfer.enough = is_short && transfer.head_is_whole;
  transfer.silent = !transfer.enough;
  return 1;
}

curl_socket_t OnOpenSocket(void* user, curlsocktype, curl_sockaddr* address) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.request->may_connect || transfer.request->may_connect(address->addr)) {
    // libcurl's own sockets are inherited by every process that this one starts.
    return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  }
  char text[NI_MAXHOST] = "";
  (void)::getnameinfo(&address->addr, address->addrlen, text, sizeof(text), nullptr, 0,
                      NI_NUMERICHOST);
  transfer.refused = text;
  return CURL_SOCKET_BAD;
}

struct CurlList {
  curl_slist* list = nullptr;
  ~CurlList() { curl_slist_free_all(list); }
  void Add(const std::string& line) { list = curl_slist_append(list, line.c_str()); }
};

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

absl::Status TransferError(CURLcode code, const Transfer& transfer, const char* detail) {
  const std::string where = UrlOrigin(transfer.request->url);
  if (transfer.cancelled) return absl::CancelledError(absl::StrCat(where, ": cancelled"));
  if (transfer.unreadable) {
    return absl::InternalError(
        absl::StrCat(transfer.request->file_part->path.string(), ": changed while it was sent"));
  }
  if (transfer.too_large) {
    return absl::ResourceExhaustedError(absl::StrCat(
        where, ": answer larger than ", transfer.request->max_response_bytes, " bytes"));
  }
  if (transfer.headers_too_large) {
    return absl::ResourceExhaustedError(
        absl::StrCat(where, ": headers larger than ", kMaxHeaderBytes, " bytes"));
  }
  if (!transfer.taken.ok()) return transfer.taken;
  if (!transfer.refused.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat(where, ": its address ", transfer.refused, " may not be connected to"));
  }
  if (transfer.silent || code == CURLE_OPERATION_TIMEDOUT) {
    const absl::Duration total = transfer.request->total_timeout;
    // libcurl counts whole milliseconds.
    const absl::Duration taken = Clock::Real().Monotonic() - transfer.begun + absl::Milliseconds(2);
    const bool over = !transfer.silent && taken >= transfer.left;
    return absl::DeadlineExceededError(
        absl::StrCat(where, over ? ": not over within " : ": no answer within ",
                     absl::FormatDuration(over ? total : transfer.request->timeout)));
  }
  const std::string text = detail[0] != '\0' ? detail : curl_easy_strerror(code);
  if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL) {
    return absl::InvalidArgumentError(absl::StrCat("expected an http(s) URL: ", text));
  }
  absl::Status failure = absl::UnavailableError(absl::StrCat(where, ": ", text));
  if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY ||
      code == CURLE_PEER_FAILED_VERIFICATION) {
    failure.SetPayload(kLasting, absl::Cord());
  }
  return failure;
}

}  // namespace

bool IsLasting(const absl::Status& failure) { return failure.GetPayload(kLasting).has_value(); }

bool HttpRequest::HasHeader(std::string_view name) const {
  return std::any_of(headers.begin(), headers.end(),
                     [&](const auto& header) { return ToLower(header.first) == name; });
}

std::string HttpResponse::Header(std::string_view name) const {
  const auto it = headers.find(ToLower(name));
  return it == headers.end() ? "" : it->second;
}

std::string UrlOrigin(std::string_view url) {
  CURLU* parsed = curl_url();
  char *scheme = nullptr, *host = nullptr, *port = nullptr;
  std::string origin;
  if (curl_url_set(parsed, CURLUPART_URL, std::string(url).c_str(), 0) == CURLUE_OK &&
      curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
      curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
      curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
      (std::string_view(scheme) == "http" || std::string_view(scheme) == "https")) {
    origin = absl::StrCat(scheme, "://", ToLower(host), ":", port);
  }
  for (char* part : {scheme, host, port}) curl_free(part);
  curl_url_cleanup(parsed);
  return origin;
}

std::string PercentEncoded(std::string_view text, std::string_view also) {
  std::string out;
  for (const char c : text) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~' ||
                          also.find(c) != std::string_view::npos;
    if (is_plain) {
      out += c;
    } else {
      absl::StrAppendFormat(&out, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return out;
}

bool IsOrdinaryHeader(std::string_view name) {
  static const auto& ordinary = *new std::set<std::string>{
      "accept",       "accept-encoding", "accept-language", "cache-control",     "content-encoding",
      "content-type", "expect",          "if-match",        "if-modified-since", "if-none-match",
      "if-range",     "range",           "traceparent",     "user-agent"};
  return ordinary.contains(ToLower(name));
}

std::string ResolveUrl(const std::string& base, const std::string& location) {
  CURLU* url = curl_url();
  std::string resolved;
  char* text = nullptr;
  if (curl_url_set(url, CURLUPART_URL, base.c_str(), 0) == CURLUE_OK &&
      curl_url_set(url, CURLUPART_URL, location.c_str(), 0) == CURLUE_OK &&
      curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK) {
    resolved = text;
  }
  curl_free(text);
  curl_url_cleanup(url);
  return resolved;
}

HttpClient::HttpClient() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  curl_ = curl_easy_init();
}

HttpClient::~HttpClient() { curl_easy_cleanup(curl_); }

absl::StatusOr<HttpResponse> HttpClient::Send(const HttpRequest& original) {
  HttpRequest request = original;
  const std::string first_origin = UrlOrigin(request.url);
  if (first_origin.empty())
    return absl::InvalidArgumentError("expected an http:// or https:// URL");
  const absl::Duration begin = Clock::Real().Monotonic();
  for (int redirects = 0;; ++redirects) {
    const absl::Duration left = request.total_timeout - (Clock::Real().Monotonic() - begin);
    if (redirects > 0 && left <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(absl::StrCat(first_origin, ": not over within ",
                                                      absl::FormatDuration(request.total_timeout)));
    }
    ASSIGN_OR_RETURN(HttpResponse response, SendOnce(request, left));
    const bool is_followed = request.max_redirects > 0 && IsRedirect(response.status);
    response.url = request.url;
    if (!is_followed || response.Header("location").empty()) return response;
    if (redirects >= request.max_redirects) {
      return absl::UnavailableError(
          absl::StrCat(first_origin, ": more than ", request.max_redirects, " redirects"));
    }
    const std::string target = ResolveUrl(request.url, response.Header("location"));
    if (request.stays_at_origin && UrlOrigin(target) != first_origin) return response;
    request.url = target;
    const std::string origin = UrlOrigin(request.url);
    if (origin.empty()) {
      return absl::UnavailableError(
          absl::StrCat(first_origin, ": redirected to something that is no http(s) URL"));
    }
    if (origin != first_origin) {
      std::erase_if(request.headers,
                    [](const auto& header) { return !IsOrdinaryHeader(header.first); });
    }
  }
}

absl::StatusOr<HttpResponse> HttpClient::SendOnce(const HttpRequest& request, absl::Duration left) {
  if (request.may_connect && request.may_use_proxy) {  // which connects to whatever it is told
    const auto address = LiteralAddress(request.url);
    if (address && !request.may_connect(reinterpret_cast<const sockaddr&>(*address))) {
      return absl::PermissionDeniedError(
          absl::StrCat(UrlOrigin(request.url), ": its address may not be connected to"));
    }
  }
  CURL* curl = static_cast<CURL*>(curl_);
  curl_easy_reset(curl);  // keeps the connections
  char detail[CURL_ERROR_SIZE] = "";
  Transfer transfer;
  transfer.request = &request;
  transfer.left = left;
  transfer.begun = transfer.last_activity = transfer.last_sent = Clock::Real().Monotonic();

  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "flowmesh");
  const auto connect_ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(request.timeout));
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(connect_ms));
  if (left != absl::InfiniteDuration()) {
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     static_cast<long>(std::max<int64_t>(1, absl::ToInt64Milliseconds(left))));
  }
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, OnProgress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);

  curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, OnOpenSocket);
  curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, &transfer);
  if (!request.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, request.ca_file.c_str());
  if (request.may_connect) {
    if (!request.may_reuse_connection) curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    if (!request.may_use_proxy) curl_easy_setopt(curl, CURLOPT_PROXY, "");
  }

  CurlList headers;
  for (const auto& [name, value] : request.headers) {
    // "Name;" is how libcurl sends a header without a value.
    headers.Add(value.empty() ? name + ";" : absl::StrCat(name, ": ", value));
  }
  headers.Add("Expect:");  // no round trip before the body

  Upload upload{.transfer = &transfer};
  std::unique_ptr<curl_mime, void (*)(curl_mime*)> mime(nullptr, curl_mime_free);
  if (request.file_part) {
    mime.reset(curl_mime_init(curl));
    curl_mimepart* part = curl_mime_addpart(mime.get());
    curl_mime_name(part, request.file_part->field_name.c_str());
    RETURN_IF_ERROR(OpenFile(request.file_part->path, upload));
    curl_mime_data_cb(part, static_cast<curl_off_t>(upload.size), OnRead, OnSeek, nullptr, &upload);
    curl_mime_filename(part, request.file_part->file_name.c_str());
    curl_mime_type(part, request.file_part->content_type.c_str());
    curl_easy_setopt(curl, CURLOPT_MIMEPOST, mime.get());
  } else if (request.method == "HEAD") {
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  } else if (!request.body.empty() || request.method == "POST" || request.method == "PUT" ||
             request.method == "PATCH") {
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.body.size()));
    if (request.pace) {
      upload.body = request.body;
      upload.size = request.body.size();
      curl_easy_setopt(curl, CURLOPT_POST, 1L);
      curl_easy_setopt(curl, CURLOPT_READFUNCTION, OnRead);
      curl_easy_setopt(curl, CURLOPT_READDATA, &upload);
      curl_easy_setopt(curl, CURLOPT_SEEKFUNCTION, OnSeek);
      curl_easy_setopt(curl, CURLOPT_SEEKDATA, &upload);
    } else {
      curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.c_str());
    }
  }
  if (request.method != "HEAD") {
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.list);

  if (request.on_body) {
    curl_easy_setopt(curl, CURLOPT_VERBOSE, 1L);
    curl_easy_setopt(curl, CURLOPT_DEBUGFUNCTION, OnTrace);
    curl_easy_setopt(curl, CURLOPT_DEBUGDATA, &transfer);
  }
  const CURLcode code = curl_easy_perform(curl);
  if (code != CURLE_OK && !transfer.enough) return TransferError(code, transfer, detail);
  if (transfer.surplus) {
    return absl::DataLossError(
        absl::StrCat(UrlOrigin(request.url), ": answer longer than its Content-Length"));
  }
  return std::move(transfer.response);
}

}  // namespace flowmesh
