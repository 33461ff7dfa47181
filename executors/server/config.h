// The executor's configuration, from the environment.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/endpoint.h"
#include "common/env.h"
#include "common/log.h"
#include "common/status.h"
#include "executors/launch/rank_process.h"

namespace flowmesh::executor {

struct ExecutorConfig {
  Endpoint listen;
  std::string name;
  std::string devices;                         // `auto`, `cpu`, or places and UUIDs by comma
  std::optional<std::string> visible_devices;  // CUDA_VISIBLE_DEVICES; empty hides every GPU
  int threads = 1;
  std::filesystem::path rank_bin;
  NodeOptions node;                                  // this machine among those that train together
  absl::Duration progress_timeout = absl::Hours(1);  // infinite: none
  absl::Duration idle_release = absl::Minutes(10);   // infinite: never
  std::optional<Endpoint> metrics_listen;            // nothing: off
  LogLevel log_level = LogLevel::kInfo;
};

// Reads and checks it. The first error is in env.status(), things worth a warning in
// env.warnings(). `program_dir` is where the rank program is looked for.
ExecutorConfig ReadExecutorConfig(EnvReader& env, const std::filesystem::path& program_dir);

// CPUs that this process may use: its affinity mask, cut by the control group's quota.
int AvailableCpus();

}  // namespace flowmesh::executor
