#include "common/fetch/downloader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/address_guard.h"
#include "common/files.h"
#include "common/redact.h"
#include "common/sha256.h"
#include "common/strings.h"

namespace flowmesh {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxErrorBytes = 1 << 20;

// What tells one version of a file from another; empty when nothing does. A weak ETag does not.
std::string Validator(const HttpResponse& head) {
  const std::string etag = head.Header("etag");
  if (!etag.empty() && etag.rfind("W/", 0) != 0) return etag;
  return head.Header("last-modified");
}

struct ContentRange {
  uint64_t begin = 0;
  std::optional<uint64_t> total;
};

// `bytes 5-9/10`, or `*` for the total.
std::optional<ContentRange> ParseContentRange(std::string_view value) {
  absl::string_view text = ToAbsl(Trim(value));
  if (!absl::ConsumePrefix(&text, "bytes ")) return std::nullopt;
  const std::vector<absl::string_view> halves = absl::StrSplit(text, '/');
  const std::vector<absl::string_view> ends = absl::StrSplit(halves[0], '-');
  ContentRange range;
  if (halves.size() != 2 || ends.size() != 2 || !absl::SimpleAtoi(ends[0], &range.begin)) {
    return std::nullopt;
  }
  uint64_t total = 0;
  if (absl::SimpleAtoi(halves[1], &total)) {
    range.total = total;
  } else if (halves[1] != "*") {
    return std::nullopt;
  }
  return range;
}

absl::Status StatusOf(const HttpResponse& response, const std::string& shown_body) {
  const std::string text = absl::StrCat("status ", response.status, shown_body);
  switch (response.status) {
    case 401:
    case 403:
      return absl::PermissionDeniedError(text);
    case 404:
    case 410:
      return absl::NotFoundError(text);
    default:
      return absl::UnknownError(text);
  }
}

}  // namespace

// What of a file has come so far, under its dot-name.
class Downloader::Partial {
 public:
  Partial(DotFile file, const DownloadRequest& request)
      : file_(std::move(file)), max_bytes_(request.max_bytes), on_progress_(request.on_progress) {}

  // Asks for the rest only, where that can be told from the rest of another file.
  void AskForRest(HttpRequest& request) {
    in_answer_ = false;
    if (bytes_ == 0 || validator_.empty()) return;
    request.headers.emplace_back("Range", absl::StrCat("bytes=", bytes_, "-"));
    request.headers.emplace_back("If-Range", validator_);
  }

  absl::Status Add(const HttpResponse& head, std::string_view piece) {
    if (!in_answer_) RETURN_IF_ERROR(BeginAnswer(head));
    if (piece.size() > max_bytes_ - bytes_) return TooLarge();
    sha256_.Update(piece);
    bytes_ += piece.size();
    if (on_progress_) on_progress_(bytes_, total_.value_or(0));
    return file_.Write(piece);
  }

  // The answer is over: whether the file is.
  absl::Status EndAnswer(const HttpResponse& head) {
    if (!in_answer_) RETURN_IF_ERROR(BeginAnswer(head));
    if (total_ && bytes_ != *total_) {
      return absl::UnavailableError(
          absl::StrCat(bytes_, " bytes came of ", *total_, " that were announced"));
    }
    return absl::OkStatus();
  }

  absl::Status Restart() {
    validator_.clear();
    total_.reset();
    bytes_ = 0;
    (void)sha256_.Hex();  // begins anew
    return file_.Empty();
  }

  absl::StatusOr<DownloadedFile> Commit(const std::optional<std::string>& wanted) {
    DownloadedFile file{.bytes = bytes_, .sha256 = sha256_.Hex()};
    if (wanted && ToLower(*wanted) != file.sha256) {
      return absl::DataLossError(
          absl::StrCat("expected SHA-256 ", ToLower(*wanted), ", got ", file.sha256));
    }
    RETURN_IF_ERROR(file_.Commit());
    return file;
  }

  uint64_t bytes() const { return bytes_; }

 private:
  absl::Status BeginAnswer(const HttpResponse& head) {
    in_answer_ = true;
    if (head.status == 206) return GoOn(head);
    RETURN_IF_ERROR(Restart());
    validator_ = Validator(head);
    uint64_t length = 0;
    if (absl::SimpleAtoi(head.Header("content-length"), &length)) total_ = length;
    return total_.value_or(0) > max_bytes_ ? TooLarge() : absl::OkStatus();
  }

  absl::Status GoOn(const HttpResponse& head) {
    const std::optional<ContentRange> range = ParseContentRange(head.Header("content-range"));
    const std::string validator = Validator(head);
    const bool same = validator.empty() || validator == validator_;
    if (range && bytes_ > 0 && range->begin == bytes_ && same &&
        (!total_ || !range->total || *range->total == *total_)) {
      if (range->total) total_ = range->total;
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(Restart());
    return absl::UnavailableError("the server sent another part than was asked for");
  }

  absl::Status TooLarge() const {
    return absl::ResourceExhaustedError(absl::StrCat("larger than ", max_bytes_, " bytes"));
  }

  DotFile file_;
  const uint64_t max_bytes_;
  const std::function<void(uint64_t, uint64_t)> on_progress_;
  Sha256 sha256_;
  uint64_t bytes_ = 0;
  std::optional<uint64_t> total_;  // as announced
  std::string validator_;
  bool in_answer_ = false;
};

Downloader::Downloader(DownloaderOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

HttpRequest Downloader::RequestFor(const DownloadRequest& request,
                                   const std::function<bool()>& is_cancelled) const {
  HttpRequest out;
  out.url = request.url;
  out.headers = request.headers;
  out.timeout = request.timeout;
  out.max_response_bytes = kMaxErrorBytes;
  out.cancelled = is_cancelled;
  if (request.no_link_local) {
    out.may_connect = [](const sockaddr& address) { return !IsLinkLocal(address); };
    out.may_use_proxy = true;
  }
  if (options_.token.empty() || out.HasHeader("authorization")) return out;
  bool is_known = false, is_ours = false;
  for (const std::string& url : options_.token_urls) {
    const std::string origin = UrlOrigin(url);
    is_known = is_known || !origin.empty();
    is_ours = is_ours || (!origin.empty() && origin == UrlOrigin(request.url));
  }
  if (is_ours || (!is_known && options_.token_without_origin)) {
    out.headers.emplace_back("Authorization", "Bearer " + options_.token);
  }
  return out;
}

Downloader::Answer Downloader::FetchOnce(HttpRequest request, Partial& partial) {
  partial.AskForRest(request);
  request.on_body = [&](const HttpResponse& head, std::string_view piece) {
    return partial.Add(head, piece);
  };
  const absl::StatusOr<HttpResponse> response = client_.Send(request);
  absl::Status status = response.status();
  if (response.ok() && response->status < 300) status = partial.EndAnswer(*response);
  if (!response.ok() || response->status < 300) {
    return {.status = status, .retryable = IsRetryable(status)};
  }
  const int code = response->status;
  Answer answer{.status = StatusOf(*response, ShownBody(response->body, request, {options_.token})),
                .retryable = IsRetryable(code),
                .retry_after = ParseRetryAfter(response->Header("retry-after"), clock_.Now())};
  if (code == 416 && partial.bytes() > 0) {  // the file has become shorter
    if (const absl::Status restarted = partial.Restart(); !restarted.ok()) return {restarted};
    answer.retryable = true;
  }
  return answer;
}

absl::Status Downloader::Fetch(const std::string& what, HttpRequest request, Partial& partial,
                               const std::function<bool()>& is_cancelled) {
  Retries retries(what, options_.retry_limit, clock_, options_.on_retry);
  uint64_t most_bytes = 0;
  while (true) {
    const Answer answer = FetchOnce(request, partial);
    if (answer.status.ok() || !answer.retryable) return answer.status;
    if (partial.bytes() > most_bytes) {
      most_bytes = partial.bytes();
      retries.Progressed();
    }
    RETURN_IF_ERROR(retries.WaitAfter(answer.status, answer.retry_after, is_cancelled));
  }
}

absl::StatusOr<DownloadedFile> Downloader::Download(const DownloadRequest& request,
                                                    const std::function<bool()>& is_cancelled) {
  const std::string what = absl::StrCat("GET ", ShownUrl(request.url));
  RemoveDotNames(request.to);
  ASSIGN_OR_RETURN(DotFile dot_file, DotFile::Create(request.to));
  Partial partial(std::move(dot_file), request);
  const HttpRequest http = RequestFor(request, is_cancelled);
  RETURN_IF_ERROR(Annotate(Fetch(what, http, partial, is_cancelled), what));
  absl::StatusOr<DownloadedFile> file = partial.Commit(request.sha256);
  return file.ok() ? file : absl::StatusOr<DownloadedFile>(Annotate(file.status(), what));
}

}  // namespace flowmesh
