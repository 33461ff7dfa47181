#include "clients/cpp/local_worker.h"

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/clock.h"

namespace flowmesh::client {
namespace fs = std::filesystem;
namespace {

constexpr absl::Duration kStopGrace = absl::Seconds(10);
constexpr absl::Duration kPollPause = absl::Milliseconds(10);
constexpr absl::Duration kConnectPause = absl::Milliseconds(100);

absl::StatusOr<Subprocess> StartLogged(SubprocessOptions options, const fs::path& log) {
  const UniqueFd fd(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!fd.valid()) return ErrnoError("cannot create", log);
  options.stdout_fd = fd.get();
  options.stderr_fd = fd.get();
  options.env[kParentVariable] = absl::StrCat(::getpid());
  return Subprocess::Start(options);
}

std::string LastLines(const std::string& text, size_t count) {
  const size_t last = text.find_last_not_of('\n');
  size_t from = last;
  while (count > 0 && from != std::string::npos) {
    from = from == 0 ? std::string::npos : text.rfind('\n', from - 1);
    --count;
  }
  const size_t begin = from == std::string::npos ? 0 : from + 1;
  return last == std::string::npos ? "" : text.substr(begin, last + 1 - begin);
}

}  // namespace

absl::StatusOr<fs::path> FindProgram(const std::string& name) {
  std::error_code error;
  if (const fs::path self = fs::read_symlink("/proc/self/exe", error); !error) {
    if (const auto beside = FindExecutable(self.parent_path() / name)) return *beside;
  }
  if (const auto in_path = FindExecutable(name)) return *in_path;
  return absl::NotFoundError(
      absl::StrCat(name, " stands neither beside this program nor in PATH; ./dev build makes it"));
}

absl::StatusOr<std::unique_ptr<LocalWorker>> LocalWorker::Start(
    const LocalWorkerOptions& options, const std::function<bool()>& cancelled) {
  std::unique_ptr<LocalWorker> worker(new LocalWorker);
  RETURN_IF_ERROR(MakeDirectories(options.results_dir));
  RETURN_IF_ERROR(worker->StartExecutor(options));
  RETURN_IF_ERROR(worker->StartSidecar(options));
  worker->client_ = std::make_unique<SidecarClient>(
      absl::StrCat("unix:", (worker->dir_ / "sidecar.sock").string()));
  RETURN_IF_ERROR(worker->WaitUntilReady(options.start_limit, cancelled));
  return worker;
}

LocalWorker::~LocalWorker() {
  if (sidecar_) sidecar_->Terminate(kStopGrace);
  if (executor_) executor_->Terminate(kStopGrace);
}

// The executor keeps our working folder: specs name models relative to it.
absl::Status LocalWorker::StartExecutor(const LocalWorkerOptions& options) {
  ASSIGN_OR_RETURN(const fs::path program, FindProgram("flowmesh-executor"));
  SubprocessOptions process;
  process.argv = {program};
  process.env = {{"EXECUTOR_LISTEN", absl::StrCat("unix:", (dir_ / "executor.sock").string())},
                 {"EXECUTOR_NAME", "e0"},
                 {"EXECUTOR_DEVICES", options.devices},
                 {"EXECUTOR_METRICS_LISTEN", "off"}};
  if (!options.agent_configurations.empty()) {
    process.env["AGENT_CONFIG_DIR"] = options.agent_configurations;
  }
  ASSIGN_OR_RETURN(executor_, StartLogged(std::move(process), dir_ / "flowmesh-executor.log"));
  return absl::OkStatus();
}

absl::Status LocalWorker::StartSidecar(const LocalWorkerOptions& options) {
  ASSIGN_OR_RETURN(const fs::path program, FindProgram("flowmesh-sidecar"));
  SubprocessOptions process;
  process.argv = {program};
  process.working_directory = dir_.path();  // it writes worker.log there
  process.env = {
      {"REDIS_URL", "none"},
      {"WORKER_ID", "local"},
      {"EXECUTOR_ENDPOINTS", absl::StrCat("e0=unix:", (dir_ / "executor.sock").string())},
      {"SIDECAR_LISTEN", absl::StrCat("unix:", (dir_ / "sidecar.sock").string())},
      {"METRICS_LISTEN", "off"},
      {"DRAIN_TIMEOUT_SEC", "1"},
      {"STATE_DIR", dir_ / "state"},
      {"RESULTS_DIR", fs::absolute(options.results_dir)}};
  ASSIGN_OR_RETURN(sidecar_, StartLogged(std::move(process), dir_ / "flowmesh-sidecar.log"));
  return absl::OkStatus();
}

absl::Status LocalWorker::CheckAlive(std::optional<Subprocess>& process, const char* name) const {
  const std::optional<ExitStatus> ended = process->Poll();
  if (!ended) return absl::OkStatus();
  const absl::StatusOr<std::string> log = ReadFile(dir_ / absl::StrCat(name, ".log"));
  return absl::UnavailableError(absl::StrCat(name, " ended with ", ended->ToString(), ":\n",
                                             log.ok() ? LastLines(*log, 5) : ""));
}

absl::Status LocalWorker::WaitUntilReady(absl::Duration limit,
                                         const std::function<bool()>& cancelled) {
  const Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Monotonic() + limit;
  while (true) {
    if (cancelled && cancelled()) return absl::CancelledError("interrupted while starting");
    RETURN_IF_ERROR(CheckAlive(executor_, "flowmesh-executor"));
    RETURN_IF_ERROR(CheckAlive(sidecar_, "flowmesh-sidecar"));
    client_->WaitUntilConnected(kConnectPause);
    const absl::StatusOr<v1::GetWorkerResponse> answer = client_->Worker(absl::Seconds(1));
    if (answer.ok() && answer->workers_size() > 0 && answer->workers(0).status() == "IDLE") {
      return absl::OkStatus();
    }
    if (clock.Monotonic() > deadline) {
      return absl::UnavailableError(
          absl::StrCat("the local worker was not ready after ", absl::FormatDuration(limit), ": ",
                       answer.ok() ? "its executor is not connected" : Message(answer.status())));
    }
    absl::SleepFor(kPollPause);
  }
}

}  // namespace flowmesh::client
