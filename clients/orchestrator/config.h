// The orchestrator's settings (PROTOCOL.md sections 11 and 12).
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/endpoint.h"
#include "common/env.h"
#include "common/log.h"
#include "common/redis/address.h"

namespace flowmesh::orchestrator {

struct Config {
  redis::Address redis;
  std::filesystem::path results_dir;
  Endpoint listen;    // TCP; port 0: the system chooses
  std::string token;  // empty: no check
  bool merge = true;
  int merge_max_batch = 4;  // parent included
  bool elastic = true;
  bool watchdog = true;
  absl::Duration watchdog_interval = absl::Seconds(30);
  absl::Duration watchdog_grace = absl::Seconds(60);
  // The reference's traps, for tests of workers. A delay stands between PUBLISH and the late
  // DISPATCHED and RUNNING.
  std::optional<absl::Duration> late_order_delay;
  bool flushdb_on_exit = false;
  LogLevel log_level = LogLevel::kInfo;
};

// Declares and reads every variable; errors are in `env.status()`.
Config ReadConfig(EnvReader& env);

}  // namespace flowmesh::orchestrator
