#include "common/redis/address.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/url.h"

namespace flowmesh::redis {
namespace {

constexpr int kSentinelPort = 26379;
constexpr uint64_t kMaxPasswordBytes = 64 << 10;

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
  if (HasBlank(host)) return absl::InvalidArgumentError("a host with white space");
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

// `place` is what stands behind the credentials: `host:port,host:port/master/db`.
absl::Status ParseSentinels(std::string_view place, Address& address) {
  const size_t slash = std::min(place.find('/'), place.size());
  for (const std::string& host : SplitTrimmed(place.substr(0, slash), ',')) {
    Address& sentinel = address.sentinels.emplace_back();
    sentinel.port = kSentinelPort;
    RETURN_IF_ERROR(ParseHostAndPort(host, sentinel));
  }
  if (address.sentinels.empty()) return absl::InvalidArgumentError("no sentinel");
  std::string_view name = slash == place.size() ? "" : place.substr(slash + 1);
  if (const size_t end = name.find('/'); end != std::string_view::npos) {
    RETURN_IF_ERROR(ParseDatabase(name.substr(end + 1), address));
    name = name.substr(0, end);
  }
  ASSIGN_OR_RETURN(address.master, PercentDecode(name));
  return address.master.empty() ? absl::InvalidArgumentError("no name of a master")
                                : absl::OkStatus();
}

absl::Status ParseServer(std::string_view place, Address& address) {
  const size_t slash = place.find('/');
  RETURN_IF_ERROR(ParseHostAndPort(place.substr(0, slash), address));
  return slash == std::string_view::npos ? absl::OkStatus()
                                         : ParseDatabase(place.substr(slash + 1), address);
}

// `sentinel` takes what concerns all of them.
absl::Status ParseParameter(std::string_view text, Address& address, Address& sentinel) {
  const size_t equals = std::min(text.find('='), text.size());
  const std::string_view name = text.substr(0, equals);
  ASSIGN_OR_RETURN(std::string value,
                   PercentDecode(equals == text.size() ? "" : text.substr(equals + 1)));
  if (name == "db") return ParseDatabase(value, address);
  if (name == "ssl_ca_certs") address.tls_ca_file = std::move(value);
  if (name == "ssl_certfile") address.tls_certificate_file = std::move(value);
  if (name == "ssl_keyfile") address.tls_key_file = std::move(value);
  if (name == "sentinel_username") sentinel.user = std::move(value);
  if (name == "sentinel_password") sentinel.password = std::move(value);
  return absl::OkStatus();
}

absl::Status CheckTlsFiles(const Address& address) {
  if (!address.tls && !(address.tls_ca_file + address.tls_certificate_file).empty()) {
    return absl::InvalidArgumentError("files for TLS with a scheme without TLS");
  }
  if (!address.tls_key_file.empty() && address.tls_certificate_file.empty()) {
    return absl::InvalidArgumentError("ssl_keyfile without ssl_certfile");
  }
  return absl::OkStatus();
}

absl::Status ParseParameters(std::string_view text, Address& address) {
  Address common;
  for (const std::string& parameter : SplitTrimmed(text, '&')) {
    RETURN_IF_ERROR(ParseParameter(parameter, address, common));
  }
  RETURN_IF_ERROR(CheckTlsFiles(address));
  for (Address& sentinel : address.sentinels) {
    sentinel.user = common.user;
    sentinel.password = common.password;
    sentinel.tls = address.tls;
    sentinel.tls_ca_file = address.tls_ca_file;
    sentinel.tls_certificate_file = address.tls_certificate_file;
    sentinel.tls_key_file = address.tls_key_file;
  }
  return absl::OkStatus();
}

absl::StatusOr<Address> ParseParts(std::string_view url) {
  Address address;
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return absl::InvalidArgumentError("no scheme");
  const std::string scheme = ToLower(url.substr(0, scheme_end));
  std::string_view rest = url.substr(scheme_end + 3);
  const bool is_unix = scheme == "unix";
  const bool is_sentinel = scheme == "redis+sentinel" || scheme == "rediss+sentinel";
  if (scheme != "redis" && scheme != "rediss" && !is_unix && !is_sentinel) {
    return absl::InvalidArgumentError(absl::StrCat("the scheme \"", scheme, "\""));
  }
  address.tls = scheme.rfind("rediss", 0) == 0;
  if (const size_t at = CredentialsEnd(rest, is_unix); at != std::string_view::npos) {
    RETURN_IF_ERROR(ParseCredentials(rest.substr(0, at), address));
    rest = rest.substr(at + 1);
  }
  const size_t mark = std::min(rest.find('?'), rest.size());
  const std::string_view place = rest.substr(0, mark);
  if (is_unix) {
    if (place.substr(0, 1) != "/") {
      return absl::InvalidArgumentError("a socket path that is not absolute");
    }
    ASSIGN_OR_RETURN(address.unix_path, PercentDecode(place));
  } else {
    RETURN_IF_ERROR(is_sentinel ? ParseSentinels(place, address) : ParseServer(place, address));
  }
  RETURN_IF_ERROR(ParseParameters(mark == rest.size() ? "" : rest.substr(mark + 1), address));
  return address;
}

}  // namespace

std::string Address::ToString() const {
  std::string where = unix_path.empty() ? absl::StrCat(host, ":", port) : unix_path;
  if (!sentinels.empty()) {
    const auto append = [](std::string* out, const Address& one) { *out += one.ToString(); };
    where = absl::StrCat(master, " of ", absl::StrJoin(sentinels, ",", append));
  }
  if (database != 0) absl::StrAppend(&where, " db ", database);
  return where;
}

absl::StatusOr<Address> ParseRedisUrl(std::string_view url) {
  absl::StatusOr<Address> address = ParseParts(Trim(url));
  if (address.ok()) return address;
  return absl::InvalidArgumentError(
      absl::StrCat("expected redis[s]://[user:password@]host[:port][/db], unix:///path or "
                   "redis[s]+sentinel://[user:password@]host[:port],.../master[/db], got ",
                   address.status().message()));
}

absl::StatusOr<std::string> PasswordOf(const Address& address) {
  if (address.password_file.empty()) return address.password;
  absl::StatusOr<std::string> text = ReadFile(address.password_file, kMaxPasswordBytes);
  if (!text.ok()) return absl::UnavailableError(text.status().message());
  while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
  if (!text->empty()) return text;
  return absl::UnavailableError(absl::StrCat(address.password_file, ": no password in it"));
}

}  // namespace flowmesh::redis
