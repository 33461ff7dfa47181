#include "executors/retrieval/page.h"

#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address_guard.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/html/charset.h"

namespace flowmesh::retrieval {
namespace {

constexpr uint64_t kMostBytes = 256u << 20;

// By the type that the server says, else by the URL's ending; empty: neither is known.
std::string EndingOf(const std::string& content_type, const std::string& url) {
  static const auto& endings =
      *new std::map<std::string, std::string>{{"text/html", ".html"},
                                              {"application/xhtml+xml", ".html"},
                                              {"application/pdf", ".pdf"},
                                              {"text/markdown", ".md"},
                                              {"text/x-markdown", ".md"}};
  const std::string type = ToLower(Trim(content_type.substr(0, content_type.find(';'))));
  if (const auto it = endings.find(type); it != endings.end()) return it->second;
  const std::string path = ToLower(url.substr(0, url.find_first_of("?#")));
  for (const char* ending : {".html", ".htm", ".pdf", ".md", ".markdown", ".txt"}) {
    if (absl::EndsWith(path, ending)) return ending;
  }
  return type == "text/plain" ? ".txt" : "";
}

}  // namespace

bool IsPageUrl(const std::string& source) {
  return absl::StartsWithIgnoreCase(source, "http://") ||
         absl::StartsWithIgnoreCase(source, "https://");
}

absl::StatusOr<Page> FetchPage(const std::string& url, const std::function<bool()>& is_cancelled) {
  const HttpRequest request{
      .url = url,
      .timeout = absl::Seconds(30),
      .total_timeout = absl::Minutes(10),
      .max_response_bytes = kMostBytes,
      .cancelled = is_cancelled,
      .may_connect = [](const sockaddr& address) { return !IsLinkLocal(address); }};
  absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
  if (absl::IsCancelled(response.status())) return response.status();
  if (!response.ok()) {
    return absl::Status(
        response.status().code(),
        absl::StrCat(ShownUrl(url), ": ", WithoutSecrets(Message(response.status()), request, {})));
  }
  if (response->status != 200) {
    return absl::UnavailableError(absl::StrCat(ShownUrl(url), ": answered ", response->status));
  }
  const std::string type = response->Header("content-type");
  Page page{std::move(response->body), EndingOf(type, response->url)};
  if (page.ending != ".pdf") page.content = html::ToUtf8(page.content, html::CharsetOf(type));
  if (!page.ending.empty()) return page;
  return absl::InvalidArgumentError(
      absl::StrCat(ShownUrl(url), ": expected HTML, Markdown, text or a PDF, got ",
                   type.empty() ? "content without a type" : type.substr(0, 100)));
}

}  // namespace flowmesh::retrieval
