// Values of environment variables that cannot be meant end each program at its start, with status 1
// and one line that names the variable (PROTOCOL.md section 11).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/subprocess.h"

namespace flowmesh::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct BadValue {
  std::string name, value;
  std::map<std::string, std::string> beside = {};  // variables that it is set with
};

class BadEnvironmentTest : public ::testing::Test {
 protected:
  // What the program says when it must not start.
  void ExpectRefusal(const std::string& program, const BadValue& bad) {
    SCOPED_TRACE(absl::StrCat(program, " with ", bad.name, "=", bad.value));
    SubprocessOptions options;
    options.argv = {fs::path(std::getenv("FLOWMESH_BIN_DIR")) / program};
    options.working_directory = dir_.path();
    options.env = {{"REDIS_URL", "none"},
                   {"METRICS_LISTEN", "off"},
                   {"STATE_DIR", dir_ / "state"},
                   {"RESULTS_DIR", dir_ / "results"},
                   {"SIDECAR_LISTEN", absl::StrCat("unix:", (dir_ / "s.sock").string())},
                   {"EXECUTOR_LISTEN", absl::StrCat("unix:", (dir_ / "e.sock").string())}};
    for (const auto& [name, value] : bad.beside) options.env[name] = value;
    options.env[bad.name] = bad.value;
    const UniqueFd err(
        ::open((dir_ / "err").c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    options.stdout_fd = options.stderr_fd = err.get();
    absl::StatusOr<Subprocess> process = Subprocess::Start(options);
    ASSERT_TRUE(process.ok()) << process.status();
    const std::optional<ExitStatus> end = process->Wait(absl::Seconds(30));
    const std::string said = ReadFile(dir_ / "err").value();
    if (!end) process->Terminate(absl::Seconds(5));
    ASSERT_TRUE(end) << "it runs: " << said;
    EXPECT_EQ(end->exit_code, 1) << end->ToString();
    EXPECT_THAT(said, AllOf(StartsWith(absl::StrCat(program, ": ", bad.name, ": ")),
                            Not(HasSubstr("canary"))));
    EXPECT_EQ(said.find('\n'), said.size() - 1) << said;
  }

  TempDir dir_;
};

TEST_F(BadEnvironmentTest, OfTheSidecar) {
  ASSERT_TRUE(WriteFileAtomically(dir_ / "file", "x").ok());
  const std::string file = dir_ / "file";
  for (const BadValue& bad :
       std::vector<BadValue>{{"REDIS_URL", "http://u:canary@h"},
                             {"REDIS_URL", "redis://h:port"},
                             {"REDIS_URL", "redis://h/x"},
                             {"REDIS_URL", "redis://a b"},
                             {"REDIS_URL", "unix://relative"},
                             {"REDIS_HOST", "a b", {{"REDIS_URL", ""}}},
                             {"REDIS_PORT", "0"},
                             {"REDIS_DB", "-1"},
                             {"REDIS_PASSWORD_FILE", "/none", {{"REDIS_URL", "redis://h"}}},
                             {"RESULTS_DIR", file},
                             {"STATE_DIR", file},
                             {"TASK_TOPIC", "tasks.events"},
                             {"TASK_TOPIC", "workers.events"},
                             {"HEARTBEAT_INTERVAL_SEC", "0"},
                             {"HEARTBEAT_INTERVAL_SEC", "1.5"},
                             {"WORKER_ID", "a b"},
                             {"WORKER_ID", "\xff"},
                             {"WORKER_TAGS", "\xff"},
                             {"WORKER_COST_PER_HOUR", "-1"},
                             {"WORKER_COST_PER_HOUR", "inf"},
                             {"ORCHESTRATOR_BASE_URL", "http//h"},
                             {"ORCHESTRATOR_BASE_URL", "ftp://u:canary@h"},
                             {"ORCHESTRATOR_BASE_URL", "http://u:canary@h:99999"},
                             {"ORCHESTRATOR_TOKEN", "can ary canary"},
                             {"WORKER_NETWORK_BANDWIDTH_BYTES_PER_SEC", "0"},
                             {"EXECUTOR_ENDPOINTS", ","},
                             {"EXECUTOR_ENDPOINTS", "h"},
                             {"EXECUTOR_ENDPOINTS", "127.0.0.1:0"},
                             {"EXECUTOR_ENDPOINTS", "a/b=127.0.0.1:1"},
                             {"EXECUTOR_ENDPOINTS", "a=127.0.0.1:1,a=127.0.0.1:2"},
                             {"SIDECAR_LISTEN", "127.0.0.1"},
                             {"SIDECAR_LISTEN", absl::StrCat("unix:/", std::string(120, 'x'))},
                             {"SIDECAR_LISTEN", "unix:/nonexistent/s.sock"},
                             {"SIDECAR_LISTEN", "192.0.2.1:1"},
                             {"METRICS_LISTEN", "9464"},
                             {"METRICS_LISTEN", "unix:/x"},
                             {"METRICS_LISTEN", "192.0.2.1:1"},
                             {"DRAIN_TIMEOUT_SEC", "-1"},
                             {"DELIVERY_TIMEOUT_SEC", "nan"},
                             {"EVENT_RETRY_SEC", "x"},
                             {"TERMINAL_EVENT_FLOOR_MS", "0.5"},
                             {"TASK_SILENCE_TIMEOUT_SEC", "-1"},
                             {"POISON_TASK_DEATHS", "-1"},
                             {"MAX_MESSAGE_BYTES", "1048575"}}) {
    ExpectRefusal("flowmesh-sidecar", bad);
  }
}

TEST_F(BadEnvironmentTest, OfTheExecutor) {
  for (const BadValue& bad : std::vector<BadValue>{{"EXECUTOR_LISTEN", "127.0.0.1"},
                                                   {"EXECUTOR_LISTEN", "192.0.2.1:1"},
                                                   {"EXECUTOR_NAME", "a/b"},
                                                   {"EXECUTOR_DEVICES", "gpu"},
                                                   {"EXECUTOR_DEVICES", ","},
                                                   {"EXECUTOR_THREADS", "0"},
                                                   {"EXECUTOR_RANK_BIN", "/nonexistent/rank"},
                                                   {"EXECUTOR_RANK_BIN", "/etc/passwd"},
                                                   {"NNODES", "0"},
                                                   {"NODE_RANK", "1"},
                                                   {"MASTER_ADDR", "", {{"NNODES", "2"}}},
                                                   {"MASTER_PORT", "0"},
                                                   {"EXECUTOR_PROGRESS_TIMEOUT_SEC", "-1"},
                                                   {"EXECUTOR_IDLE_RELEASE_SEC", "soon"},
                                                   {"EXECUTOR_METRICS_LISTEN", "on"},
                                                   {"EXECUTOR_METRICS_LISTEN", "192.0.2.1:1"},
                                                   {"HF_ENDPOINT", "hub.example"},
                                                   {"HF_ENDPOINT", "ftp://u:canary@h"},
                                                   {"HF_TOKEN", "can ary canary"},
                                                   {"HF_HUB_OFFLINE", "maybe"},
                                                   {"UTU_LLM_TYPE", "chat"},
                                                   {"UTU_LLM_BASE_URL", "127.0.0.1:8000/v1"},
                                                   {"UTU_LLM_API_KEY", "can ary canary"},
                                                   {"SERPER_API_KEY", "can\tary canary"},
                                                   {"JINA_API_KEY", "can\nary canary"},
                                                   {"AGENT_CONFIG_DIR", "/nonexistent"}}) {
    ExpectRefusal("flowmesh-executor", bad);
  }
}

TEST_F(BadEnvironmentTest, OfTheLocalOrchestrator) {
  for (const BadValue& bad : std::vector<BadValue>{{"REDIS_URL", "http://u:canary@h"},
                                                   {"ORCHESTRATOR_LISTEN", "8000"},
                                                   {"ORCHESTRATOR_TOKEN", "can ary canary"},
                                                   {"TASK_MERGE_MAX_BATCH_SIZE", "0"},
                                                   {"WORKER_DEATH_CHECK_INTERVAL", "1"},
                                                   {"WORKER_DEATH_GRACE_SEC", "-1"},
                                                   {"ORCHESTRATOR_LATE_ORDER_MS", "-2"}}) {
    BadValue whole = bad;
    whole.beside.emplace("REDIS_URL", "redis://127.0.0.1:1");
    ExpectRefusal("flowmesh-orchestrator", whole);
  }
}

}  // namespace
}  // namespace flowmesh::testing
