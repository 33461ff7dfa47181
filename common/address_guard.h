// Keeps URLs that others chose away from what they are not for.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>

namespace flowmesh {

// Whether an address is of the public internet: no loopback, private, link-local (where clouds
// serve machine credentials), shared, multicast or reserved one, nor one of those inside IPv6.
bool IsPublicAddress(const sockaddr& address);

// Whether an address is link-local or serves machine credentials in a cloud, also inside IPv6. What
// a task names may be of its own machine and network, but not those.
bool IsLinkLocal(const sockaddr& address);

// The address that a URL's host is; nothing when it is a name.
std::optional<sockaddr_storage> LiteralAddress(const std::string& url);

// Whether a URL's host may be public by its name alone: false for `localhost` and for addresses
// that are not. For URLs that somebody else fetches.
bool MayBePublicHost(const std::string& url);

}  // namespace flowmesh
