#include "executors/server/config.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "common/strings.h"
#include "common/subprocess.h"

namespace flowmesh::executor {
namespace {

// Several machines whose executors get the same training task form one group, as with torchrun.
NodeOptions ReadNode(EnvReader& env) {
  constexpr int64_t kMostNodes = 4096, kLastPort = 65535;
  NodeOptions node;
  node.count = static_cast<int>(
      env.Int("NNODES", 1, 1, "machines whose executors train together; each gets the same task",
              kMostNodes));
  node.rank = static_cast<int>(
      env.Int("NODE_RANK", 0, 0, "this machine's place among them, from 0", kMostNodes - 1));
  const std::string address =
      env.String("MASTER_ADDR", "", "address of machine 0 for the ranks of all; with NNODES > 1");
  const int64_t port = env.Int("MASTER_PORT", 29500, 1,
                               "its port; each restart of a task takes the next one", kLastPort);
  if (node.rank >= node.count) {
    env.Reject("NODE_RANK", "less than NNODES (" + std::to_string(node.count) + ")",
               std::to_string(node.rank));
  }
  if (node.count == 1) return node;
  if (address.empty()) env.Reject("MASTER_ADDR", "an address, because NNODES is over 1", address);
  node.master_addr = address;
  node.master_port = static_cast<int>(port);
  return node;
}

// A variable whose value is one of `words`, in any case.
void CheckWord(EnvReader& env, std::string_view name, std::string_view fallback,
               std::string_view help, const std::vector<std::string>& words) {
  const std::string value = env.String(name, fallback, help);
  if (std::find(words.begin(), words.end(), ToLower(Trim(value))) == words.end()) {
    env.Reject(name, absl::StrJoin(words, ", "), value);
  }
}

// Ranks inherit the environment and read these themselves; here they join the help, and what cannot
// be meant is seen at the start.
void ReadForRanks(EnvReader& env) {
  env.String("HF_HOME", "~/.cache/huggingface", "models and data sets of the hub, in its hub/");
  env.String("HF_HUB_CACHE", "", "that hub/ folder itself, instead of HF_HOME's");
  env.HttpUrl("HF_ENDPOINT", "https://huggingface.co", "the hub that is asked for what it lacks");
  env.Secret("HF_TOKEN", "token for that hub, sent to its own host only");
  CheckWord(env, "HF_HUB_OFFLINE", "0", "1: the hub is never asked",
            {"0", "1", "false", "true", "no", "yes", "off", "on"});
  env.String("VLLM_MODEL", "",
             "model of an inference task on GPUs that names none, else HF_MODEL's");
  env.String("HF_MODEL", "", "the same on the CPU, else VLLM_MODEL's");
  CheckWord(env, "UTU_LLM_TYPE", "chat.completions",
            "form of the agents' chat endpoint: chat.completions or responses",
            {"chat.completions", "responses"});
  env.String("UTU_LLM_MODEL", "", "the model that agents ask there");
  env.HttpUrl("UTU_LLM_BASE_URL", "", "where it is, such as http://127.0.0.1:8000/v1");
  env.Secret("UTU_LLM_API_KEY", "its key");
  env.Secret("SERPER_API_KEY", "key of serper.dev, for agents that search the web");
  env.Secret("JINA_API_KEY", "key of r.jina.ai, which then reads pages for agents");
  const std::string configurations(Trim(env.String(
      "AGENT_CONFIG_DIR", "", "folder with agent configurations of your own, NAME.yaml")));
  std::error_code ignored;
  if (!configurations.empty() && !std::filesystem::is_directory(configurations, ignored)) {
    env.Reject("AGENT_CONFIG_DIR", "a folder", configurations);
  }
}

}  // namespace

int AvailableCpus() {
  cpu_set_t set;
  int count = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  // cgroup v2: `<quota> <period>` in microseconds, or `max <period>`.
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0, allowed = 0;
  if (file >> quota >> period && absl::SimpleAtod(quota, &allowed) && period > 0) {
    count = std::min(count, static_cast<int>(std::ceil(allowed / period)));
  }
  return std::max(count, 1);
}

ExecutorConfig ReadExecutorConfig(EnvReader& env, const std::filesystem::path& program_dir) {
  ExecutorConfig config;
  config.listen = ReadEndpoint(
      env, "EXECUTOR_LISTEN",
      env.String("EXECUTOR_LISTEN", "127.0.0.1:50062", "gRPC address: host:port or unix:/path"));
  config.name = env.String("EXECUTOR_NAME", "e0", "this executor's name");
  if (!IsPlainFileName(config.name)) {
    env.Reject("EXECUTOR_NAME", "letters, digits, '.', '_' and '-'", config.name);
  }
  config.devices = env.String("EXECUTOR_DEVICES", "auto",
                              "auto (all visible GPUs, the CPU without one), cpu, or a list of GPU "
                              "places or UUIDs");
  config.threads = static_cast<int>(
      env.Int("EXECUTOR_THREADS", AvailableCpus(), 1, "CPU threads for its ranks", 4096));
  config.rank_bin =
      env.String("EXECUTOR_RANK_BIN", (program_dir / "flowmesh-rank").string(), "the rank program");
  // Without the one beside it an executor still runs what needs no rank.
  if (env.IsSet("EXECUTOR_RANK_BIN") && !FindExecutable(config.rank_bin)) {
    env.Reject("EXECUTOR_RANK_BIN", "a program that can be run", config.rank_bin.string());
  }
  config.node = ReadNode(env);
  const double progress_timeout =
      env.Number("EXECUTOR_PROGRESS_TIMEOUT_SEC", 3600, 0,
                 "seconds without a word from its ranks after which a task has hung; 0: never");
  config.progress_timeout =
      progress_timeout > 0 ? absl::Seconds(progress_timeout) : absl::InfiniteDuration();
  const double idle_release =
      env.Number("EXECUTOR_IDLE_RELEASE_SEC", 600, 0,
                 "seconds without a task after which its ranks end and free their memory and GPUs; "
                 "0: never");
  config.idle_release = idle_release > 0 ? absl::Seconds(idle_release) : absl::InfiniteDuration();
  const std::string metrics =
      env.String("EXECUTOR_METRICS_LISTEN", "off", "address of /metrics: host:port, or off");
  if (ToLower(metrics) != "off") {
    config.metrics_listen = ReadEndpoint(env, "EXECUTOR_METRICS_LISTEN", metrics, /*or_off=*/true);
  }
  const std::string level =
      env.String("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL");
  if (const std::optional<LogLevel> parsed = ParseLogLevel(level)) {
    config.log_level = *parsed;
  } else {
    env.Warn("LOG_LEVEL: expected DEBUG, INFO, WARNING, ERROR or CRITICAL, got \"" + level +
             "\"; INFO is used");
  }
  env.String("CUDA_VISIBLE_DEVICES", "", "GPUs that may be seen: all; empty hides every GPU");
  config.visible_devices = env.Raw("CUDA_VISIBLE_DEVICES");
  ReadForRanks(env);
  return config;
}

}  // namespace flowmesh::executor
