#include "executors/parallel/addresses.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace flowmesh::parallel {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

absl::StatusOr<AddressList> Resolve(const std::string& host, int port, int type) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = type;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot find the host ", host, ": ", ::gai_strerror(error)));
  }
  return AddressList(found, &::freeaddrinfo);
}

absl::Status SocketError(const std::string& what) {
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

UniqueFd OpenSocket(int family, int type) {
  return UniqueFd(::socket(family, type | SOCK_CLOEXEC, 0));
}

bool BindAndListen(const UniqueFd& socket, const sockaddr* address, socklen_t size) {
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  return ::bind(socket.get(), address, size) == 0 && ::listen(socket.get(), SOMAXCONN) == 0;
}

}  // namespace

absl::StatusOr<std::string> LocalAddressTowards(const std::string& host) {
  constexpr int kAnyPort = 9;  // connecting a datagram socket only chooses the way
  ASSIGN_OR_RETURN(const AddressList addresses, Resolve(host, kAnyPort, SOCK_DGRAM));
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    const UniqueFd socket = OpenSocket(at->ai_family, SOCK_DGRAM);
    sockaddr_storage ours = {};
    socklen_t size = sizeof(ours);
    char text[NI_MAXHOST];
    if (socket.valid() && ::connect(socket.get(), at->ai_addr, at->ai_addrlen) == 0 &&
        ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&ours), &size) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&ours), size, text, sizeof(text), nullptr, 0,
                      NI_NUMERICHOST) == 0) {
      return std::string(text);
    }
  }
  return SocketError(absl::StrCat("no way to ", host));
}

absl::StatusOr<UniqueFd> ListenAt(const std::string& host, int port) {
  ASSIGN_OR_RETURN(const AddressList addresses, Resolve(host, port, SOCK_STREAM));
  for (const addrinfo* at = addresses.get(); at != nullptr; at = at->ai_next) {
    UniqueFd socket = OpenSocket(at->ai_family, SOCK_STREAM);
    if (!socket.valid()) continue;
    if (BindAndListen(socket, at->ai_addr, at->ai_addrlen)) return socket;
    if (errno == EADDRINUSE) break;
    if (errno != EADDRNOTAVAIL) continue;
    sockaddr_in any = {};
    any.sin_family = AF_INET;
    any.sin_port = htons(static_cast<uint16_t>(port));
    UniqueFd everywhere = OpenSocket(AF_INET, SOCK_STREAM);
    if (BindAndListen(everywhere, reinterpret_cast<sockaddr*>(&any), sizeof(any))) {
      return everywhere;
    }
  }
  return SocketError(absl::StrCat("cannot listen at ", host, ":", port));
}

std::set<int> ConnectionsTo(int port) {
  std::set<int> connections;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/self/fd", error), end; !error && it != end;
       it.increment(error)) {
    int fd = -1;
    sockaddr_storage peer = {};
    socklen_t size = sizeof(peer);
    if (!absl::SimpleAtoi(it->path().filename().string(), &fd) ||
        ::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
      continue;
    }
    in_port_t theirs = 0;
    if (peer.ss_family == AF_INET) theirs = reinterpret_cast<sockaddr_in&>(peer).sin_port;
    if (peer.ss_family == AF_INET6) theirs = reinterpret_cast<sockaddr_in6&>(peer).sin6_port;
    if (ntohs(theirs) == port) connections.insert(fd);
  }
  return connections;
}

void LimitWaiting(int socket, absl::Duration limit) {
  const timeval time = absl::ToTimeval(limit);
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time));
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
}

}  // namespace flowmesh::parallel
