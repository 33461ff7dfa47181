// Addresses of this machine in a group of ranks.
#pragma once

#include <set>
#include <string>

#include "absl/time/time.h"
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

// The sockets of this process that are connected to TCP port `port`, of whatever host.
std::set<int> ConnectionsTo(int port);

// From now on no reading from or writing to the socket takes longer than that.
void LimitWaiting(int socket, absl::Duration limit);

}  // namespace flowmesh::parallel
