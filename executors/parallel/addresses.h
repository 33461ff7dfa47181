// Addresses of this machine in a group of ranks.
#pragma once

#include <string>

#include "common/files.h"
#include "common/status.h"

namespace flowmesh::parallel {

// The address of ours from which packets to `host` leave: the one that its side can reach us at.
// Sends nothing. Unavailable: no such host or no way to it.
absl::StatusOr<std::string> LocalAddressTowards(const std::string& host);

// A listening TCP socket for the group's store, at `host` alone where that is an address of ours,
// else (the name of a service, say) at all of them. Unavailable: no such host, or the port is
// taken.
absl::StatusOr<UniqueFd> ListenAt(const std::string& host, int port);

}  // namespace flowmesh::parallel
