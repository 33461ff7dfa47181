// Keeps URLs that others chose away from what they are not for.
#pragma once

#include <sys/socket.h>

#include <string>

namespace flowmesh {

// Whether an address is of the public internet: no loopback, private, link-local (where clouds
// serve machine credentials), shared, multicast or reserved one, nor one of those inside IPv6.
bool IsPublicAddress(const sockaddr& address);

// Whether an address is link-local or serves machine credentials in a cloud, also inside IPv6. What
// a task names may be of its own machine and network, but not those.
bool IsLinkLocal(const sockaddr& address);

// Whether a URL's host may be public by its name alone: false for `localhost` and for addresses
// that are not. For URLs that somebody else fetches.
bool MayBePublicHost(const std::string& url);

}  // namespace flowmesh
