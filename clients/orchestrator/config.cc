#include "clients/orchestrator/config.h"

#include "common/strings.h"

namespace flowmesh::orchestrator {

Config ReadConfig(EnvReader& env) {
  Config config;
  const std::string url = env.String("REDIS_URL", "redis://localhost:6379/0",
                                     "Redis server: redis://, rediss:// or unix://");
  if (auto address = redis::ParseRedisUrl(url); address.ok()) {
    config.redis = *std::move(address);
  } else {
    // The text says what is wrong without repeating the URL, which may hold a password.
    env.RejectWith("REDIS_URL", Message(address.status()));
  }
  config.results_dir = std::filesystem::absolute(
      env.String("RESULTS_DIR", "./results_host", "folder of the stored results"));
  const std::string listen = env.String("ORCHESTRATOR_LISTEN", "127.0.0.1:8000",
                                        "address of the HTTP API; port 0: any free one");
  if (const auto endpoint = ParseEndpoint(listen); endpoint.ok() && !endpoint->is_unix()) {
    config.listen = *endpoint;
  } else {
    env.Reject("ORCHESTRATOR_LISTEN", "host:port", listen);
  }
  config.token =
      env.Secret("ORCHESTRATOR_TOKEN", "bearer token that clients must send; unset: none");
  config.merge =
      env.Switch("ENABLE_TASK_MERGE", true, "send equal inference and rag tasks together");
  config.merge_max_batch = static_cast<int>(
      env.Int("TASK_MERGE_MAX_BATCH_SIZE", 4, 1, "tasks in one message, the parent included", 64));
  config.elastic = env.Switch("ENABLE_ELASTIC_SCALING", true, "allow switching workers off and on");
  config.watchdog = env.Switch("ENABLE_WORKER_WATCHDOG", true, "take tasks from dead workers");
  config.watchdog_interval = absl::Seconds(env.Int(
      "WORKER_DEATH_CHECK_INTERVAL", 30, 5, "seconds between looks at silent workers", 86400));
  config.watchdog_grace = absl::Seconds(env.Int(
      "WORKER_DEATH_GRACE_SEC", 60, 0, "seconds without heartbeat until a worker is dead", 86400));
  const int64_t late =
      env.Int("ORCHESTRATOR_LATE_ORDER_MS", -1, -1,
              "for tests: write RUNNING and DISPATCHED this many milliseconds after "
              "publishing a task, over whatever came in between; -1: off",
              60000);
  if (late >= 0) config.late_order_delay = absl::Milliseconds(late);
  config.flushdb_on_exit = env.Switch("ORCHESTRATOR_FLUSHDB_ON_EXIT", false,
                                      "for tests: wipe the Redis database at the end");
  const std::string level =
      env.String("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL");
  if (const auto parsed = ParseLogLevel(level)) {
    config.log_level = *parsed;
  } else {
    env.Warn("LOG_LEVEL: unknown level \"" + level + "\", using INFO");
  }
  return config;
}

}  // namespace flowmesh::orchestrator
