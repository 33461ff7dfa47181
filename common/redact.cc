#include "common/redact.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

constexpr size_t kShownBody = 200;     // bytes
constexpr size_t kShortestSecret = 4;  // anything shorter would blank out ordinary text

std::atomic<uint64_t> blanked{0};  // for TextsBlanked

// Where `user:password` of a URL stands: the offset of its first byte, and its length without the
// `@`; the length is npos when there is none.
std::pair<size_t, size_t> UserInfo(const std::string& url) {
  const size_t scheme = url.find("://");
  const size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const size_t at = url.substr(0, end).rfind('@');
  return {begin, at == std::string::npos || at < begin ? std::string::npos : at - begin};
}

}  // namespace

std::string WithoutUserInfo(std::string url) {
  const auto [begin, length] = UserInfo(url);
  if (length != std::string::npos) url.erase(begin, length + 1);
  return url;
}

std::string ShownUrl(const std::string& url) {
  return WithoutUserInfo(url.substr(0, url.find_first_of("?#")));
}

std::string WithoutSecrets(std::string text, const HttpRequest& request,
                           std::vector<std::string> secrets) {
  for (const auto& [name, value] : request.headers) {
    secrets.push_back(value);
    secrets.emplace_back(value.substr(value.find(' ') + 1));  // `Bearer <token>`
  }
  if (const auto [begin, length] = UserInfo(request.url); length != std::string::npos) {
    const std::string user_info = request.url.substr(begin, length);
    secrets.emplace_back(user_info.substr(user_info.find(':') + 1));
  }
  bool held_one = false;
  for (const std::string& secret : secrets) {
    if (secret.size() < kShortestSecret) continue;
    held_one = absl::StrReplaceAll({{secret, "***"}}, &text) > 0 || held_one;
  }
  if (held_one) ++blanked;
  return text;
}

uint64_t TextsBlanked() { return blanked; }

std::string ShownBody(const std::string& body, const HttpRequest& request,
                      std::vector<std::string> secrets) {
  // Cut after the secrets are out: a cut through one would leave its first half.
  const std::string shown = WithoutSecrets(body, request, std::move(secrets)).substr(0, kShownBody);
  return shown.empty() || !IsValidUtf8(shown) ? "" : absl::StrCat(": ", shown);
}

}  // namespace flowmesh
