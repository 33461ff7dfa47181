#include "common/address_guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include "common/http.h"

namespace flowmesh {
namespace {

struct Range4 {
  uint32_t begin;
  int bits;
};

// IANA's registry of special addresses, and multicast with what lies above it.
constexpr std::array<Range4, 14> kSpecial4 = {{{0x00000000, 8},    // this network
                                               {0x0A000000, 8},    // private
                                               {0x64400000, 10},   // shared (carrier NAT)
                                               {0x7F000000, 8},    // loopback
                                               {0xA9FE0000, 16},   // link-local, metadata
                                               {0xAC100000, 12},   // private
                                               {0xC0000000, 24},   // protocol assignments
                                               {0xC0000200, 24},   // documentation
                                               {0xC0A80000, 16},   // private
                                               {0xC6120000, 15},   // benchmarks
                                               {0xC6336400, 24},   // documentation
                                               {0xCB007100, 24},   // documentation
                                               {0xE0000000, 4},    // multicast
                                               {0xF0000000, 4}}};  // reserved, broadcast

// Where clouds serve credentials and settings to their machines, apart from link-local addresses.
constexpr std::array<uint32_t, 3> kMetadata4 = {0x646464C8,   // 100.100.100.200: Alibaba
                                                0xA83F8110,   // 168.63.129.16: Azure
                                                0xC00000C0};  // 192.0.0.192: Oracle
constexpr std::array<std::array<uint8_t, 16>, 2> kMetadata6 = {
    {{0xFD, 0x00, 0x0E, 0xC2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54},    // fd00:ec2::254: Amazon
     {0xFD, 0x20, 0x00, 0xCE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54}}};  // fd20:ce::254: Google

bool IsLinkLocal4(uint32_t address) {
  return address >> 16 == 0xA9FE ||
         std::find(kMetadata4.begin(), kMetadata4.end(), address) != kMetadata4.end();
}

bool IsPublic4(uint32_t address) {
  if (IsLinkLocal4(address)) return false;  // Azure's is among the public ones
  for (const Range4& range : kSpecial4) {
    if ((address ^ range.begin) >> (32 - range.bits) == 0) return false;
  }
  return true;
}

uint32_t BigEndian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | bytes[3];
}

// The address of IPv4 that one of IPv6 leads to.
std::optional<uint32_t> Inner4(const in6_addr& address) {
  const uint8_t* b = address.s6_addr;
  constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  constexpr uint8_t kNat64[12] = {0x00, 0x64, 0xFF, 0x9B};
  if (std::memcmp(b, kMapped, 12) == 0 || std::memcmp(b, kNat64, 12) == 0) {
    return BigEndian(b + 12);
  }
  if (b[0] == 0x20 && b[1] == 0x02) return BigEndian(b + 2);  // 6to4
  return std::nullopt;
}

bool IsPublic6(const in6_addr& address) {
  if (const auto inner = Inner4(address)) return IsPublic4(*inner);
  const uint8_t* b = address.s6_addr;
  // Only 2000::/3 is given out; of it, not Teredo and documentation.
  const bool is_teredo = BigEndian(b) == 0x20010000, is_documentation = BigEndian(b) == 0x20010DB8;
  return b[0] >> 5 == 1 && !is_teredo && !is_documentation;
}

bool IsLinkLocal6(const in6_addr& address) {
  if (const auto inner = Inner4(address)) return IsLinkLocal4(*inner);
  const uint8_t* b = address.s6_addr;
  return (b[0] == 0xFE && (b[1] & 0xC0) == 0x80) ||
         std::any_of(kMetadata6.begin(), kMetadata6.end(),
                     [&](const auto& known) { return std::memcmp(b, known.data(), 16) == 0; });
}

// Empty when there is none.
std::string HostOf(const std::string& url) {
  const std::string origin = UrlOrigin(url);  // libcurl writes 0x7f.1 as 127.0.0.1
  const size_t begin = origin.find("://");
  if (begin == std::string::npos) return "";
  std::string host = origin.substr(begin + 3, origin.rfind(':') - begin - 3);
  while (host.ends_with('.')) host.pop_back();
  return host;
}

}  // namespace

bool IsPublicAddress(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    return IsPublic4(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
  }
  if (address.sa_family == AF_INET6) {
    return IsPublic6(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
  }
  return false;
}

bool IsLinkLocal(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    return IsLinkLocal4(ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr));
  }
  return address.sa_family == AF_INET6 &&
         IsLinkLocal6(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

std::optional<sockaddr_storage> LiteralAddress(const std::string& url) {
  std::string host = HostOf(url);
  sockaddr_storage address = {};
  auto& four = reinterpret_cast<sockaddr_in&>(address);
  auto& six = reinterpret_cast<sockaddr_in6&>(address);
  if (::inet_pton(AF_INET, host.c_str(), &four.sin_addr) == 1) {
    address.ss_family = AF_INET;
    return address;
  }
  if (!host.starts_with('[') || !host.ends_with(']')) return std::nullopt;
  host = host.substr(1, host.size() - 2);
  if (::inet_pton(AF_INET6, host.c_str(), &six.sin6_addr) != 1) return std::nullopt;
  address.ss_family = AF_INET6;
  return address;
}

bool MayBePublicHost(const std::string& url) {
  if (const auto address = LiteralAddress(url)) {
    return IsPublicAddress(reinterpret_cast<const sockaddr&>(*address));
  }
  const std::string host = HostOf(url);
  return !host.empty() && !host.starts_with('[') && host != "localhost" &&
         !host.ends_with(".localhost") && !host.ends_with(".local") && !host.ends_with(".internal");
}

}  // namespace flowmesh
