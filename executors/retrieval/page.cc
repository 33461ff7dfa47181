#include "executors/retrieval/page.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/html/charset.h"

namespace flowmesh::retrieval {
namespace {

constexpr uint64_t kMostBytes = 256u << 20;

bool IsLinkLocal4(const uint8_t* b) {
  constexpr uint8_t kAlibaba[4] = {100, 100, 100, 200};
  return (b[0] == 169 && b[1] == 254) || std::memcmp(b, kAlibaba, 4) == 0;
}

bool IsLinkLocal6(const uint8_t* b) {
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  constexpr uint8_t kAmazon[16] = {0xFD, 0x00, 0x0E, 0xC2, 0, 0, 0,    0,
                                   0,    0,    0,    0,    0, 0, 0x02, 0x54};
  if (std::memcmp(b, kMapped, 12) == 0) return IsLinkLocal4(b + 12);
  return (b[0] == 0xFE && (b[1] & 0xC0) == 0x80) || std::memcmp(b, kAmazon, 16) == 0;
}

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

bool IsLinkLocal(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& ip = reinterpret_cast<const sockaddr_in&>(address).sin_addr;
    return IsLinkLocal4(reinterpret_cast<const uint8_t*>(&ip.s_addr));
  }
  return address.sa_family == AF_INET6 &&
         IsLinkLocal6(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr.s6_addr);
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
  Page page{std::move(response->body), EndingOf(type, url)};
  if (page.ending != ".pdf") page.content = html::ToUtf8(page.content, html::CharsetOf(type));
  if (!page.ending.empty()) return page;
  return absl::InvalidArgumentError(
      absl::StrCat(ShownUrl(url), ": expected HTML, Markdown, text or a PDF, got ",
                   type.empty() ? "content without a type" : type.substr(0, 100)));
}

}  // namespace flowmesh::retrieval
