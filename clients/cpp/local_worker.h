// A worker of this process's own: a standalone sidecar (no Redis) and one executor, on unix sockets
// in a temporary folder. What `flowmeshctl run` stands on; useful in scripts and tests.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "clients/cpp/sidecar_client.h"
#include "common/files.h"
#include "common/status.h"
#include "common/subprocess.h"

namespace flowmesh::client {

struct LocalWorkerOptions {
  std::filesystem::path results_dir;           // where task folders stay; made when it is not there
  std::string devices = "auto";                // EXECUTOR_DEVICES
  std::filesystem::path agent_configurations;  // AGENT_CONFIG_DIR; empty: the environment's
  absl::Duration start_limit = absl::Seconds(30);
};

// Owns both processes; the destructor stops them, the sidecar first. Not thread-safe, but
// client() may be used from any thread.
class LocalWorker {
 public:
  // Returns when the worker takes tasks. NotFound: flowmesh-sidecar or flowmesh-executor stands
  // neither beside this program nor in PATH. Unavailable: they did not come up; the text holds the
  // last lines they wrote. Cancelled: `cancelled` said so.
  static absl::StatusOr<std::unique_ptr<LocalWorker>> Start(
      const LocalWorkerOptions& options, const std::function<bool()>& cancelled = nullptr);
  ~LocalWorker();

  SidecarClient& client() { return *client_; }
  const std::filesystem::path& log_dir() const { return dir_.path(); }

 private:
  LocalWorker() = default;
  absl::Status StartExecutor(const LocalWorkerOptions& options);
  absl::Status StartSidecar(const LocalWorkerOptions& options);
  absl::Status WaitUntilReady(absl::Duration limit, const std::function<bool()>& cancelled);
  // Unavailable with the tail of its log when `process` has ended.
  absl::Status CheckAlive(std::optional<Subprocess>& process, const char* name) const;

  TempDir dir_;
  std::optional<Subprocess> executor_;
  std::optional<Subprocess> sidecar_;
  std::unique_ptr<SidecarClient> client_;
};

// The path of a program of this project: beside the running one, else in PATH. NotFound.
absl::StatusOr<std::filesystem::path> FindProgram(const std::string& name);

}  // namespace flowmesh::client
