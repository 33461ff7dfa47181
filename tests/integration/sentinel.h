// A real Redis Sentinel of the test's own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/subprocess.h"

namespace flowmesh::testing {

// Watches the master on a loopback port under the name `mymaster`, and fails over by itself once
// the master was silent for half a second. Ends with the object.
class Sentinel {
 public:
  // `settings` are more lines of its configuration.
  explicit Sentinel(int master_port, const std::vector<std::string>& settings = {});

  int port() const { return port_; }
  // Where it says the master is.
  int MasterPort();
  // Waits until it knows `count` replicas that could become the master.
  bool WaitForReplicas(int count);
  // A failover by order, without a reason.
  void FailOver();
  // Waits until it names another master than the one on `port`.
  bool WaitForAnotherMasterThan(int port);
  void Signal(int signal) { process_->Signal(signal); }

 private:
  TempDir dir_;
  int port_ = 0;
  std::optional<Subprocess> process_;
};

}  // namespace flowmesh::testing
