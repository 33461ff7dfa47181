// flowmesh-executor: runs tasks for a sidecar, one at a time, on one GPU group or the CPU.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "absl/synchronization/notification.h"
#include "common/log.h"
#include "common/signals.h"
#include "common/subprocess.h"
#include "executors/server/config.h"
#include "executors/server/executor_server.h"

namespace {

using flowmesh::LogInfo;
using flowmesh::LogWarning;

constexpr int kConfigurationError = 1;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "flowmesh-executor: %s\n", flowmesh::Message(status).c_str());
  return kConfigurationError;
}

}  // namespace

int main(int argc, char** argv) {
  flowmesh::BlockTerminationSignals();
  flowmesh::EndWithParentIfAsked();
  // Processes that a dead rank leaves behind become our children, so that they can be reaped.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);

  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // our errors say what there is to say

  std::error_code ignored;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", ignored);
  flowmesh::EnvReader env(flowmesh::SystemEnv());
  const flowmesh::executor::ExecutorConfig config =
      flowmesh::executor::ReadExecutorConfig(env, self.parent_path());

  const std::string_view argument = argc > 1 ? argv[1] : "";
  if (argument == "--help") {
    std::printf(
        "flowmesh-executor: runs tasks for a FlowMesh sidecar. Configured by the environment:\n%s",
        env.Help().c_str());
    return 0;
  }
  if (argument == "--version") {
    std::printf("flowmesh-executor %s\n", FLOWMESH_VERSION);
    return 0;
  }
  if (argc > 1) {
    return Fail(absl::InvalidArgumentError("expected no arguments but --help or --version, got \"" +
                                           std::string(argument) + "\""));
  }
  if (!env.status().ok()) return Fail(env.status());
  flowmesh::StartLog(config.log_level);
  for (const std::string& warning : env.warnings()) LogWarning("{}", warning);

  absl::StatusOr<std::unique_ptr<flowmesh::executor::ExecutorServer>> server =
      flowmesh::executor::ExecutorServer::Start(config);
  if (!server.ok()) return Fail(server.status());

  absl::Notification stop;
  flowmesh::SignalWatcher signals([&stop](int count) {
    if (count == 1) stop.Notify();
    // Ranks die with us (see DieWithParent), so that nothing is left behind.
    if (count > 1) ::_exit(kConfigurationError);
  });
  stop.WaitForNotification();
  LogInfo("stopping");
  (*server)->Stop();
  return 0;
}
