// The sidecar's configuration, read from the environment (PROTOCOL.md section 11).
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/endpoint.h"
#include "common/env.h"
#include "common/log.h"
#include "common/redis/address.h"
#include "sidecar/archive/archiver.h"

namespace flowmesh::sidecar {

struct ExecutorEndpoint {
  std::string name;    // `e0`
  std::string target;  // what gRPC takes: `unix:/path` or `host:port`
};

struct SidecarConfig {
  std::optional<redis::Address> redis;  // nothing: standalone, REDIS_URL=none
  std::filesystem::path results_dir;    // absolute
  std::filesystem::path state_dir;      // absolute
  std::string task_topic = "tasks";
  absl::Duration heartbeat_interval = absl::Seconds(30);
  std::string worker_id;  // random when it was not set
  bool worker_id_was_set = false;
  std::vector<std::string> tags;
  double cost_per_hour = 1.0;  // USD
  LogLevel log_level = LogLevel::kInfo;
  std::string orchestrator_base_url;  // without a trailing slash; empty: unknown
  std::string orchestrator_token;     // secret
  std::optional<double> bandwidth;    // bytes per second
  ArchiveOptions archive;             // of models and adapters
  bool cleanup_after_upload = false;
  std::vector<ExecutorEndpoint> executors;  // at least one
  Endpoint listen;                          // the local gRPC API
  std::optional<Endpoint> metrics_listen;   // nothing: off
  absl::Duration drain_timeout = absl::Seconds(20);
  absl::Duration delivery_timeout = absl::Seconds(300);
  absl::Duration event_retry = absl::Seconds(600);
  absl::Duration terminal_event_floor = absl::Milliseconds(50);
  absl::Duration task_silence = absl::Seconds(7200);  // infinite: a task is never taken for hung
  int poison_task_deaths = 3;                         // 0: never quarantined
  size_t max_message_bytes = 64u << 20;

  // The FlowMesh worker behind an executor: the id alone with one executor, else `<id>.<name>`.
  std::string WorkerIdOf(const ExecutorEndpoint& executor) const;
};

// Reads every variable; the first mistake is in env.status().
SidecarConfig ReadSidecarConfig(EnvReader& env);

}  // namespace flowmesh::sidecar
