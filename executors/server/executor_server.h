// A running executor: devices, core, the thread that runs tasks, the gRPC server, metrics.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "executors/server/config.h"

namespace flowmesh::executor {

class ExecutorServer {
 public:
  // Looks at the devices, asks the rank program what it can run, and starts to serve. Errors are
  // fatal and one line: an address in use, a device that does not exist.
  static absl::StatusOr<std::unique_ptr<ExecutorServer>> Start(const ExecutorConfig& config);

  // Stops at once what Stop has not stopped.
  virtual ~ExecutorServer() = default;

  // Refuses further tasks, cancels the running one, ends the ranks and the server; blocks for a
  // bounded time (about 15 s at worst).
  virtual void Stop() = 0;

  // The address that it serves, with the port that the system chose for port 0.
  virtual std::string target() const = 0;
};

}  // namespace flowmesh::executor
