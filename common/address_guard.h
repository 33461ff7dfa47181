// Keeps a model's choice of URLs away from this machine and its network.
#pragma once

#include <sys/socket.h>

#include <string>

namespace flowmesh::agent {

// Whether an address is of the public internet: no loopback, private, link-local (where clouds
// serve machine credentials), shared, multicast or reserved one, nor one of those inside IPv6.
bool IsPublicAddress(const sockaddr& address);

// Whether a URL's host may be public by its name alone: false for `localhost` and for addresses
// that are not. For URLs that somebody else fetches.
bool MayBePublicHost(const std::string& url);

}  // namespace flowmesh::agent
