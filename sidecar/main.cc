// flowmesh-sidecar: the part of a worker pod that talks to the outside.
#include <malloc.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "common/log.h"
#include "common/signals.h"
#include "common/subprocess.h"
#include "sidecar/config.h"
#include "sidecar/sidecar.h"

namespace {

using flowmesh::sidecar::ExitCode;

constexpr char kLogFile[] = "worker.log";

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "flowmesh-sidecar: %s\n", flowmesh::Message(status).c_str());
  return static_cast<int>(ExitCode::kCannotStart);
}

int Main(int argc, char** argv) {
  flowmesh::BlockTerminationSignals();
  flowmesh::EndWithParentIfAsked();
  // Documents are allocated by one thread and freed by another: with an arena per thread, the
  // arenas would grow and shrink page by page with every task.
  ::mallopt(M_ARENA_MAX, 1);
  // Each thread of ours waits for a connection of its own; with epoll one gRPC thread would wait
  // for all of them and hand every event on.
  ::setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0);
  ::setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // our errors say what there is to say
  flowmesh::EnvReader env(flowmesh::SystemEnv());
  flowmesh::sidecar::SidecarConfig config = flowmesh::sidecar::ReadSidecarConfig(env);

  const std::string_view argument = argc > 1 ? argv[1] : "";
  if (argument == "--help") {
    std::printf(
        "flowmesh-sidecar: connects executors to a FlowMesh orchestrator. "
        "Configured by the environment:\n%s",
        env.Help().c_str());
    return 0;
  }
  if (argument == "--version") {
    std::printf("flowmesh-sidecar %s\n", FLOWMESH_VERSION);
    return 0;
  }
  if (argc > 1) {
    return Fail(absl::InvalidArgumentError("expected no arguments but --help or --version, got \"" +
                                           std::string(argument) + "\""));
  }
  if (!env.status().ok()) return Fail(env.status());
  flowmesh::StartLog(config.log_level, kLogFile);
  for (const std::string& warning : env.warnings()) flowmesh::LogWarning("{}", warning);

  flowmesh::sidecar::Sidecar sidecar(std::move(config), flowmesh::Clock::Real());
  const absl::Status started = sidecar.Start();
  if (!started.ok()) return Fail(started);
  flowmesh::SignalWatcher signals([&sidecar](int count) { sidecar.RequestDrain(count); });
  return static_cast<int>(sidecar.Run());
}

}  // namespace

int main(int argc, char** argv) { return Main(argc, argv); }
