#include "sidecar/config.h"

#include <algorithm>
#include <limits>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/subprocess.h"
#include "common/url.h"
#include "sidecar/worker/wire.h"

namespace flowmesh::sidecar {
namespace {

constexpr size_t kMaxWorkerIdBytes = 128;

std::filesystem::path ReadFolder(EnvReader& env, std::string_view name, std::string_view fallback,
                                 std::string_view help) {
  return std::filesystem::absolute(env.String(name, fallback, help)).lexically_normal();
}

// The password of `address` is in a file, unless `file` is empty.
void SetPasswordFile(EnvReader& env, std::string_view name, const std::string& file,
                     redis::Address& address) {
  if (file.empty()) return;
  if (!address.password.empty()) {
    return env.RejectWith(name, "expected no password in REDIS_URL beside it, got one");
  }
  address.password_file = std::filesystem::absolute(file).lexically_normal();
  if (!redis::PasswordOf(address).ok()) {
    env.Reject(name, "a file with a password in it that can be read", file);
  }
}

void ReadRedis(EnvReader& env, SidecarConfig& config) {
  std::string host = env.String(
      "REDIS_HOST", "redis", "any of this, REDIS_PORT and REDIS_DB: used when REDIS_URL is unset");
  const int64_t port = env.Int("REDIS_PORT", 6379, 1, "see REDIS_HOST", 65535);
  const int64_t database = env.Int("REDIS_DB", 0, 0, "see REDIS_HOST");
  if (HasBlank(host) || host.find_first_of("/?#@") != std::string::npos) {
    env.Reject("REDIS_HOST", "a host's name or address", host);
  }
  const bool is_ipv6 = host.find(':') != std::string::npos && host.front() != '[';
  if (is_ipv6) host = absl::StrCat("[", host, "]");
  const bool has_parts =
      env.IsSet("REDIS_HOST") || env.IsSet("REDIS_PORT") || env.IsSet("REDIS_DB");
  const std::string fallback = has_parts ? absl::StrCat("redis://", host, ":", port, "/", database)
                                         : "redis://localhost:6379/0";
  const std::string url =
      env.String("REDIS_URL", fallback,
                 "redis[s]://, redis[s]+sentinel:// or unix:// address; none: standalone");
  const std::string password_file = env.String(
      "REDIS_PASSWORD_FILE", "", "file with Redis' password, read again for each connection");
  const std::string sentinel_password_file =
      env.String("REDIS_SENTINEL_PASSWORD_FILE", "", "the same for the sentinels' own password");
  if (!env.IsSet("REDIS_URL")) {
    env.Warn(absl::StrCat("REDIS_URL is not set; ", fallback, " is used"));
  }
  if (ToLower(Trim(url)) == "none") return;
  absl::StatusOr<redis::Address> address = redis::ParseRedisUrl(url);
  if (address.ok()) {
    SetPasswordFile(env, "REDIS_PASSWORD_FILE", password_file, *address);
    for (redis::Address& sentinel : address->sentinels) {
      SetPasswordFile(env, "REDIS_SENTINEL_PASSWORD_FILE", sentinel_password_file, sentinel);
    }
    config.redis = *std::move(address);
    return;
  }
  // The parser's text says `expected ..., got ...` and never holds the password.
  env.RejectWith("REDIS_URL", Message(address.status()));
}

bool IsWorkerId(std::string_view id) {
  return id != "." && id != ".." && id.size() <= kMaxWorkerIdBytes && IsValidUtf8(id) &&
         std::none_of(id.begin(), id.end(),
                      [](unsigned char c) { return c <= ' ' || c == 0x7f || c == '/'; });
}

void ReadIdentity(EnvReader& env, SidecarConfig& config) {
  config.worker_id =
      std::string(Trim(env.String("WORKER_ID", "", "this worker's id: random when empty")));
  config.worker_id_was_set = !config.worker_id.empty();
  if (!config.worker_id_was_set) config.worker_id = RandomHex(8);
  if (!IsWorkerId(config.worker_id)) {
    env.Reject("WORKER_ID",
               "at most 128 bytes of UTF-8 without white space, control characters or '/'",
               ToValidUtf8(config.worker_id));
  }
  const std::string tags = env.String("WORKER_TAGS", "", "tags, by comma");
  if (!IsValidUtf8(tags)) env.Reject("WORKER_TAGS", "UTF-8", ToValidUtf8(tags));
  config.tags = SplitTrimmed(tags, ',');
  config.cost_per_hour = env.Number("WORKER_COST_PER_HOUR", 1.0, 0, "USD");
}

void ReadExecutors(EnvReader& env, SidecarConfig& config) {
  constexpr std::string_view kName = "EXECUTOR_ENDPOINTS";
  const std::string text = env.String(kName, "127.0.0.1:50062",
                                      "executors by comma: [name=]host:port or [name=]unix:/path");
  std::set<std::string> names;
  for (const std::string& entry : SplitTrimmed(text, ',')) {
    const size_t equals = entry.find('=');
    ExecutorEndpoint executor;
    executor.name = equals == std::string::npos ? absl::StrCat("e", config.executors.size())
                                                : std::string(Trim(entry.substr(0, equals)));
    const Endpoint endpoint = ReadEndpoint(
        env, kName,
        std::string(Trim(equals == std::string::npos ? entry : entry.substr(equals + 1))));
    executor.target = endpoint.Target();
    if (!endpoint.is_unix() && endpoint.port == 0) {
      env.Reject(kName, "ports from 1 to 65535", entry);
    }
    if (!IsPlainFileName(executor.name)) {
      env.Reject(kName, "names of letters, digits, '.', '_' and '-'", executor.name);
    }
    if (!names.insert(executor.name).second) {
      env.Reject(kName, "each name once", executor.name);
    }
    config.executors.push_back(std::move(executor));
  }
  if (config.executors.empty()) env.Reject(kName, "at least one executor", text);
  for (const ExecutorEndpoint& executor : config.executors) {
    const std::string id = config.WorkerIdOf(executor);
    if (!IsWorkerId(id)) {
      env.Reject(kName,
                 absl::StrCat("names with which the worker ids, <WORKER_ID>.<name>, have at most ",
                              kMaxWorkerIdBytes, " bytes"),
                 id);
    }
  }
}

void ReadOrchestrator(EnvReader& env, SidecarConfig& config) {
  config.orchestrator_base_url =
      env.HttpUrl("ORCHESTRATOR_BASE_URL", "", "origin of the orchestrator");
  config.orchestrator_token = env.Secret("ORCHESTRATOR_TOKEN", "bearer token for the orchestrator");
  config.bandwidth = env.PositiveNumber("WORKER_NETWORK_BANDWIDTH_BYTES_PER_SEC",
                                        "throttle of results and uploads");
  config.delivery_timeout = absl::Seconds(
      env.Number("DELIVERY_TIMEOUT_SEC", 300, 0, "seconds of retries of one task's delivery"));
  config.event_retry =
      absl::Seconds(env.Number("EVENT_RETRY_SEC", 600, 0, "seconds of retries of a task's end"));
  config.terminal_event_floor = absl::Milliseconds(env.Int(
      "TERMINAL_EVENT_FLOOR_MS", 50, 0, "longest wait of a task's end for RUNNING; 0: none"));
}

// The name or path of a program, whose lack is no more than a warning: archives can do without.
std::string ReadProgram(EnvReader& env, std::string_view name, std::string_view help) {
  std::string program = env.String(name, "", help);
  if (!program.empty() && !FindExecutable(program)) {
    env.Warn(absl::StrCat(ToAbsl(name), ": expected a program that can be run, got \"", program,
                          "\"; the built-in way is used"));
  }
  return program;
}

void ReadArchive(EnvReader& env, SidecarConfig& config) {
  ArchiveOptions& archive = config.archive;
  const bool parallel =
      env.Switch("MODEL_ARCHIVE_USE_PIGZ", true, "off: archives are compressed by one thread");
  const int64_t level =
      env.LenientInt("MODEL_ARCHIVE_COMPRESSION_LEVEL", 6, std::numeric_limits<int64_t>::min(),
                     "of archives: 0 (stored) to 9");
  archive.level = static_cast<int>(std::clamp<int64_t>(level, 0, 9));
  if (archive.level != level) {
    env.Warn(
        absl::StrCat("MODEL_ARCHIVE_COMPRESSION_LEVEL: expected an integer from 0 to 9, got \"",
                     level, "\"; ", archive.level, " is used"));
  }
  const int64_t processors = std::max(1u, std::thread::hardware_concurrency());
  const int64_t threads =
      env.LenientInt("MODEL_ARCHIVE_PIGZ_THREADS", processors, 1,
                     "that compress archives; default: all processors; 16 at most without pigz");
  archive.threads = parallel ? static_cast<int>(std::min<int64_t>(threads, 1 << 10)) : 1;
  archive.tar_program =
      ReadProgram(env, "MODEL_ARCHIVE_TAR_BIN", "tar to use for archives; empty: none is needed");
  const std::string gzip =
      ReadProgram(env, "MODEL_ARCHIVE_PIGZ_BIN", "pigz to use for archives; empty: none is needed");
  if (parallel) archive.gzip_program = gzip;
  config.cleanup_after_upload =
      env.Switch("MODEL_CLEANUP_AFTER_UPLOAD", false,
                 "deletes final model, archive and checkpoints once they are delivered over HTTP");
}

void ReadListeners(EnvReader& env, SidecarConfig& config) {
  config.listen = ReadEndpoint(
      env, "SIDECAR_LISTEN",
      env.String("SIDECAR_LISTEN", "127.0.0.1:50061", "gRPC: host:port or unix:/path"));
  const std::string metrics = env.String("METRICS_LISTEN", "127.0.0.1:9464",
                                         "/metrics, /healthz, /readyz: host:port or off");
  if (ToLower(metrics) != "off") {
    config.metrics_listen = ReadEndpoint(env, "METRICS_LISTEN", metrics, /*or_off=*/true);
  }
}

}  // namespace

std::string SidecarConfig::WorkerIdOf(const ExecutorEndpoint& executor) const {
  return executors.size() == 1 ? worker_id : absl::StrCat(worker_id, ".", executor.name);
}

SidecarConfig ReadSidecarConfig(EnvReader& env) {
  SidecarConfig config;
  ReadRedis(env, config);
  config.results_dir =
      ReadFolder(env, "RESULTS_DIR", "./results_workers", "root of the tasks' folders");
  config.state_dir = ReadFolder(env, "STATE_DIR", "./flowmesh_state", "local disk, not shared");
  config.task_topic = env.String("TASK_TOPIC", "tasks", "channel of the tasks");
  if (config.task_topic == kWorkerEvents || config.task_topic == kTaskEvents) {
    env.Reject("TASK_TOPIC", "a channel that no events go to", config.task_topic);
  }
  config.heartbeat_interval =
      absl::Seconds(env.Int("HEARTBEAT_INTERVAL_SEC", 30, 1, "seconds", 1 << 20));
  ReadIdentity(env, config);
  const std::string level =
      env.String("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL");
  if (const std::optional<LogLevel> parsed = ParseLogLevel(level)) {
    config.log_level = *parsed;
  } else {
    env.Warn(absl::StrCat("LOG_LEVEL: expected DEBUG, INFO, WARNING, ERROR or CRITICAL, got \"",
                          level, "\"; INFO is used"));
  }
  ReadOrchestrator(env, config);
  ReadArchive(env, config);
  ReadExecutors(env, config);
  ReadListeners(env, config);
  config.drain_timeout = absl::Seconds(
      env.Number("DRAIN_TIMEOUT_SEC", 20, 0, "seconds that a running task gets at shutdown"));
  const double silence =
      env.Number("TASK_SILENCE_TIMEOUT_SEC", 7200, 0,
                 "seconds without a word of its executor after which a task is ended as hung, more "
                 "than the executor's own bound; 0: never");
  config.task_silence = silence > 0 ? absl::Seconds(silence) : absl::InfiniteDuration();
  config.poison_task_deaths = static_cast<int>(
      env.Int("POISON_TASK_DEATHS", 3, 0,
              "deaths of ranks or executors after which a task is not run again; 0: never", 1000));
  config.max_message_bytes = static_cast<size_t>(
      env.Int("MAX_MESSAGE_BYTES", 64 << 20, 1 << 20, "longest task message in bytes"));
  return config;
}

}  // namespace flowmesh::sidecar
