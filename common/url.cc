#include "common/url.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "common/strings.h"

namespace flowmesh {

bool HasBlank(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](unsigned char c) { return c <= ' ' || c == 0x7f; });
}

bool IsHttpUrl(std::string_view text) {
  const size_t scheme_end = text.find("://");
  if (HasBlank(text) || scheme_end == std::string_view::npos) return false;
  const std::string scheme = ToLower(text.substr(0, scheme_end));
  if (scheme != "http" && scheme != "https") return false;
  std::string_view host = text.substr(scheme_end + 3);
  host = host.substr(0, host.find_first_of("/?#"));
  host = host.substr(host.rfind('@') + 1);  // npos + 1 is 0
  const size_t bracket = host.rfind(']');
  const bool is_ipv6 = !host.empty() && host.front() == '[';
  if (is_ipv6 != (bracket != std::string_view::npos)) return false;
  const size_t colon = host.find(':', is_ipv6 ? bracket : 0);
  if (colon == std::string_view::npos) return !host.empty();
  int port = 0;
  return colon > 0 && absl::SimpleAtoi(ToAbsl(host.substr(colon + 1)), &port) && port > 0 &&
         port <= 65535;
}

std::pair<size_t, size_t> UserInfo(const std::string& url) {
  const size_t scheme = url.find("://");
  const size_t begin = scheme == std::string::npos ? 0 : scheme + 3;
  const size_t end = std::min(url.find_first_of("/?#", begin), url.size());
  const size_t at = url.substr(0, end).rfind('@');
  return {begin, at == std::string::npos || at < begin ? std::string::npos : at - begin};
}

std::string WithoutUserInfo(std::string url) {
  const auto [begin, length] = UserInfo(url);
  if (length != std::string::npos) url.erase(begin, length + 1);
  return url;
}

}  // namespace flowmesh
