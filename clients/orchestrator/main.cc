// flowmesh-orchestrator: the local orchestrator for development and tests.
#include <cstdio>
#include <string_view>

#include "absl/synchronization/notification.h"
#include "clients/orchestrator/config.h"
#include "clients/orchestrator/http_api.h"
#include "clients/orchestrator/orchestrator.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/signals.h"

namespace flowmesh::orchestrator {
namespace {

constexpr char kAbout[] =
    "flowmesh-orchestrator: takes FlowMesh workflows over HTTP and dispatches their tasks to "
    "workers\n"
    "over Redis. For development and tests on one machine; not a production orchestrator.\n\n"
    "Usage: flowmesh-orchestrator [--help|--version]\n\n"
    "It prints `listening on http://HOST:PORT` once it serves, and ends with SIGTERM or SIGINT.\n"
    "Environment variables, with their defaults in brackets:\n\n";

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "flowmesh-orchestrator: %s\n", Message(status).c_str());
  return 1;
}

int Run(int argc, char** argv) {
  BlockTerminationSignals();
  EnvReader env(SystemEnv());
  Config config = ReadConfig(env);
  if (argc > 1) {
    const std::string_view flag = argv[1];
    if (flag == "--help" || flag == "-h") {
      std::fputs((kAbout + env.Help()).c_str(), stdout);
      return 0;
    }
    if (flag == "--version") {
      std::puts("flowmesh-orchestrator " FLOWMESH_VERSION);
      return 0;
    }
    std::fprintf(stderr, "flowmesh-orchestrator: unknown argument '%s'; see --help\n", argv[1]);
    return 2;
  }
  if (!env.status().ok()) return Fail(env.status());
  StartLog(config.log_level);
  for (const std::string& warning : env.warnings()) LogWarning("{}", warning);

  absl::Notification stop;
  const SignalWatcher signals([&](int count) {
    if (count == 1) stop.Notify();
  });
  Orchestrator orchestrator(std::move(config), Clock::Real());
  if (const absl::Status status = orchestrator.Start(); !status.ok()) return Fail(status);
  HttpApi http(orchestrator);
  if (const absl::Status status = http.Start(); !status.ok()) return Fail(status);
  std::printf("listening on %s\n", http.url().c_str());
  std::fflush(stdout);
  LogInfo("results are kept in {}", orchestrator.config().results_dir.string());
  stop.WaitForNotification();
  LogInfo("stopping");
  http.Stop();
  orchestrator.Stop();
  return 0;
}

}  // namespace
}  // namespace flowmesh::orchestrator

int main(int argc, char** argv) { return flowmesh::orchestrator::Run(argc, argv); }
