#include "common/redis/address.h"

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh::redis {
namespace {

absl::StatusOr<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    // SimpleHexAtoi alone would take a sign, spaces and `0x` too.
    const std::string_view digits = text.substr(i + 1, 2);
    int code = 0;
    if (digits.size() != 2 || !absl::ascii_isxdigit(digits[0]) ||
        !absl::ascii_isxdigit(digits[1]) || !absl::SimpleHexAtoi(ToAbsl(digits), &code)) {
      return absl::InvalidArgumentError("a bad percent escape");
    }
    out += static_cast<char>(code);
    i += 2;
  }
  return out;
}

absl::Status ParseCredentials(std::string_view text, Address& address) {
  const size_t colon = text.find(':');
  ASSIGN_OR_RETURN(address.user, PercentDecode(text.substr(0, colon)));
  if (colon != std::string_view::npos) {
    ASSIGN_OR_RETURN(address.password, PercentDecode(text.substr(colon + 1)));
  }
  return absl::OkStatus();
}

absl::Status ParseDatabase(std::string_view text, Address& address) {
  if (text.empty()) return absl::OkStatus();
  if (!absl::SimpleAtoi(ToAbsl(text), &address.database) || address.database < 0) {
    return absl::InvalidArgumentError("a database that is no number from 0 on");
  }
  return absl::OkStatus();
}

absl::Status ParseHostAndPort(std::string_view text, Address& address) {
  std::string_view host = text, port;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return absl::InvalidArgumentError("a bad IPv6 address");
    host = text.substr(1, close - 1);
    port = text.substr(close + 1);
  } else if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  address.host = host.empty() ? "localhost" : std::string(host);
  if (port.empty()) return absl::OkStatus();
  if (port.front() != ':' || !absl::SimpleAtoi(ToAbsl(port.substr(1)), &address.port) ||
      address.port < 1 || address.port > 65535) {
    return absl::InvalidArgumentError("a bad port");
  }
  return absl::OkStatus();
}

// The place of the @ behind user and password. It is the last one, because a password may hold one
// that nobody escaped; but a socket's path may hold one as well, and always begins with a slash.
size_t CredentialsEnd(std::string_view rest, bool is_unix) {
  if (!is_unix) return rest.rfind('@');
  return rest.substr(0, 1) == "/" ? std::string_view::npos : rest.find("@/");
}

absl::StatusOr<Address> ParseParts(std::string_view url) {
  Address address;
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return absl::InvalidArgumentError("no scheme");
  const std::string scheme = ToLower(url.substr(0, scheme_end));
  std::string_view rest = url.substr(scheme_end + 3);
  if (scheme != "redis" && scheme != "rediss" && scheme != "unix") {
    return absl::InvalidArgumentError(absl::StrCat("the scheme \"", scheme, "\""));
  }
  address.tls = scheme == "rediss";
  if (const size_t at = CredentialsEnd(rest, scheme == "unix"); at != std::string_view::npos) {
    RETURN_IF_ERROR(ParseCredentials(rest.substr(0, at), address));
    rest = rest.substr(at + 1);
  }
  const size_t mark = rest.find('?');
  const std::string_view place = rest.substr(0, mark);
  const size_t slash = place.find('/');
  if (scheme == "unix") {
    if (slash != 0) return absl::InvalidArgumentError("a socket path that is not absolute");
    ASSIGN_OR_RETURN(address.unix_path, PercentDecode(place));
  } else {
    RETURN_IF_ERROR(ParseHostAndPort(place.substr(0, slash), address));
    if (slash != std::string_view::npos) {
      RETURN_IF_ERROR(ParseDatabase(place.substr(slash + 1), address));
    }
  }
  // `?db=` wins over the path, as in other clients.
  if (mark == std::string_view::npos) return address;
  for (const std::string& parameter : SplitTrimmed(rest.substr(mark + 1), '&')) {
    if (parameter.rfind("db=", 0) != 0) continue;
    RETURN_IF_ERROR(ParseDatabase(std::string_view(parameter).substr(3), address));
  }
  return address;
}

}  // namespace

std::string Address::ToString() const {
  std::string where = unix_path.empty() ? absl::StrCat(host, ":", port) : unix_path;
  if (database != 0) absl::StrAppend(&where, " db ", database);
  return where;
}

absl::StatusOr<Address> ParseRedisUrl(std::string_view url) {
  absl::StatusOr<Address> address = ParseParts(Trim(url));
  if (address.ok()) return address;
  return absl::InvalidArgumentError(
      absl::StrCat("expected redis[s]://[user:password@]host[:port][/db] or unix:///path, got ",
                   address.status().message()));
}

}  // namespace flowmesh::redis
