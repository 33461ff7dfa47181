#include "common/endpoint.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/url.h"

namespace flowmesh {

std::string Endpoint::Target() const {
  if (is_unix()) return absl::StrCat("unix:", unix_path);
  const bool v6 = host.find(':') != std::string::npos;
  return v6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      absl::StrCat("expected host:port or unix:/path, got \"", ToAbsl(text), "\""));
  text = Trim(text);
  if (HasBlank(text)) return bad;
  Endpoint endpoint;
  if (text.substr(0, 5) == "unix:") {
    text.remove_prefix(5);
    if (text.substr(0, 2) == "//") text.remove_prefix(2);
    if (text.empty() || text.front() != '/') return bad;
    if (text.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::InvalidArgumentError(absl::StrCat("expected a socket path of at most ",
                                                     sizeof(sockaddr_un::sun_path) - 1,
                                                     " bytes, got ", text.size()));
    }
    endpoint.unix_path = std::string(text);
    return endpoint;
  }
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return bad;
  std::string_view host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad;
  }
  if (host.empty() || !absl::SimpleAtoi(ToAbsl(text.substr(colon + 1)), &endpoint.port) ||
      endpoint.port < 0 || endpoint.port > 65535) {
    return bad;
  }
  endpoint.host = std::string(host);
  return endpoint;
}

Endpoint ReadEndpoint(EnvReader& env, std::string_view name, const std::string& text, bool or_off) {
  absl::StatusOr<Endpoint> endpoint = ParseEndpoint(text);
  if (or_off && (!endpoint.ok() || endpoint->is_unix())) {
    env.Reject(name, "host:port or off", text);
  } else if (!endpoint.ok()) {
    env.RejectWith(name, Message(endpoint.status()));
  } else {
    return *std::move(endpoint);
  }
  return {};
}

absl::StatusOr<UniqueFd> LockEndpoint(const Endpoint& endpoint) {
  if (!endpoint.is_unix()) return UniqueFd();
  const std::string lock_path = endpoint.unix_path + ".lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock.valid()) return ErrnoError("cannot open", lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process listens on ", endpoint.Target()));
  }
  ::unlink(endpoint.unix_path.c_str());
  return lock;
}

absl::StatusOr<int> FreeLoopbackPort() {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (!fd.valid() || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoError("cannot bind a port on", "127.0.0.1");
  }
  return ntohs(address.sin_port);
}

}  // namespace flowmesh
