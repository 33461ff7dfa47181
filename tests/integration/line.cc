#include "tests/integration/line.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/http.h"
#include "common/strings.h"

namespace flowmesh::testing {
namespace {

std::string RequiredEnv(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    ADD_FAILURE() << name << " is not set: run this test through ctest";
    std::abort();
  }
  return value;
}

}  // namespace

std::filesystem::path GoldenModel(const std::string& name) {
  return std::filesystem::path(RequiredEnv("FLOWMESH_SOURCE_DIR")) / "tests/goldens/models" / name;
}

Program::Program(std::string name, std::map<std::string, std::string> env,
                 const std::filesystem::path& directory, std::vector<std::string> command)
    : name_(std::move(name)), log_(directory / absl::StrCat(name_, "-", RandomHex(3), ".log")) {
  SubprocessOptions options;
  options.argv = std::move(command);
  if (options.argv.empty()) options.argv = {RequiredEnv("FLOWMESH_BIN_DIR") + "/" + name_};
  // It dies with a test that is aborted or runs out of time.
  const std::string wrapper[] = {"setpriv", "--pdeathsig", "KILL"};
  options.argv.insert(options.argv.begin(), std::begin(wrapper), std::end(wrapper));
  options.env = std::move(env);
  options.env.emplace("LOG_LEVEL", "DEBUG");
  options.working_directory = directory;
  UniqueFd log(::open(log_.c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  absl::StatusOr<Subprocess> process = Subprocess::Start(options);
  if (!process.ok()) {
    ADD_FAILURE() << process.status();
    std::abort();
  }
  process_ = *std::move(process);
}

Program::~Program() {
  process_->Terminate(absl::Seconds(10));
  if (::testing::Test::HasFailure()) {
    const std::string output = Output();
    const size_t begin = output.size() > 6000 ? output.size() - 6000 : 0;
    std::cerr << "--- " << name_ << ":\n" << output.substr(begin) << "\n";
  }
}

std::string Program::Output() const { return ReadFile(log_).value_or(""); }

bool Program::WaitForOutput(const std::string& text, absl::Duration timeout) {
  return Eventually(
             [&] {
               return Output().find(text) != std::string::npos || process_->Poll().has_value();
             },
             timeout) &&
         Output().find(text) != std::string::npos;
}

void Program::Freeze() {
  process_->Signal(SIGSTOP);
  EXPECT_TRUE(Eventually([&] {
    const std::string stat =
        ReadFile(absl::StrCat("/proc/", process_->pid(), "/stat")).value_or("");
    return stat.find(") T ") != std::string::npos;
  }));
}

double Program::ResidentMegabytes() const {
  std::ifstream status(absl::StrCat("/proc/", process_->pid(), "/status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

absl::Duration Program::CpuTimeIn(absl::Duration duration) const {
  const auto used = [&] {
    const std::string stat =
        ReadFile(absl::StrCat("/proc/", process_->pid(), "/stat")).value_or("");
    // `pid (name) state`, ten numbers, then ticks in user mode and in the kernel.
    std::istringstream rest(stat.substr(stat.rfind(')') + 1));
    std::string skipped;
    for (int i = 0; i < 11; ++i) rest >> skipped;
    double user = 0, kernel = 0;
    rest >> user >> kernel;
    return absl::Seconds((user + kernel) / static_cast<double>(::sysconf(_SC_CLK_TCK)));
  };
  const absl::Duration before = used();
  const absl::Duration end = Clock::Real().Monotonic() + duration;
  Eventually([&] { return Clock::Real().Monotonic() >= end; }, 2 * duration);
  return used() - before;
}

std::vector<pid_t> Program::Children() const {
  const std::string parent = absl::StrCat(process_->pid(), " ");
  std::vector<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    int pid = 0;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &pid)) continue;
    const std::string stat = ReadFile(entry.path() / "stat").value_or("");
    const size_t end = stat.rfind(") ");
    // `pid (name) state parent ...`
    if (end != std::string::npos && absl::StartsWith(stat.substr(end + 4), parent)) {
      children.push_back(pid);
    }
  }
  return children;
}

Line::Line(LineOptions options) : options_(std::move(options)) {
  redis_ = std::make_unique<RedisPeer>(server_.port());
  if (!options_.redis_setup.empty()) {
    EXPECT_EQ(redis_->Command(options_.redis_setup), "OK");
  }
  events_ = std::make_unique<EventRecorder>(server_.port(), options_.on_event);
  metrics_port_ = FreeLoopbackPort().value();
  if (options_.orchestrator) {
    std::map<std::string, std::string> env = options_.orchestrator_env;
    env.emplace("REDIS_URL", server_.url());
    env.emplace("RESULTS_DIR", (dir_ / "results_host").string());
    env.emplace("ORCHESTRATOR_LISTEN", "127.0.0.1:0");
    orchestrator_ = std::make_unique<Program>("flowmesh-orchestrator", env, dir_.path());
    const std::string announcement = "listening on ";
    EXPECT_TRUE(orchestrator_->WaitForOutput(announcement)) << orchestrator_->Output();
    const std::string output = orchestrator_->Output();
    const size_t begin = output.find(announcement) + announcement.size();
    orchestrator_url_ = output.substr(begin, output.find('\n', begin) - begin);
  }
  for (const std::string& name : options_.executors) StartExecutor(name);
  StartSidecar();
  for (const std::string& name : options_.executors) {
    EXPECT_TRUE(WaitForStatus("IDLE", worker_id(name)));
  }
}

Line::~Line() = default;

std::string Line::sidecar_target() const {
  return absl::StrCat("unix:", (dir_ / "sidecar.sock").string());
}

std::string Line::metrics_url() const { return absl::StrCat("http://127.0.0.1:", metrics_port_); }

std::string Line::worker_id(const std::string& executor) const {
  if (options_.executors.size() <= 1) return "w";
  return absl::StrCat("w.", executor.empty() ? options_.executors.front() : executor);
}

void Line::ObserveAgain(int port) {
  if (port == 0) port = server_.port();
  events_.reset();
  redis_ = std::make_unique<RedisPeer>(port);
  events_ = std::make_unique<EventRecorder>(port, options_.on_event);
}

void Line::StopObserving() {
  events_->Leave();
  events_.reset();
}

void Line::StartExecutor(const std::string& name) {
  std::map<std::string, std::string> env = options_.executor_env;
  env.emplace("EXECUTOR_LISTEN",
              absl::StrCat("unix:", (dir_ / absl::StrCat(name, ".sock")).string()));
  env.emplace("EXECUTOR_NAME", name);
  env.emplace("EXECUTOR_DEVICES", "cpu");
  executors_[name].reset();
  const auto command = options_.executor_commands.find(name);
  executors_[name] = command == options_.executor_commands.end()
                         ? std::make_unique<Program>("flowmesh-executor", env, dir_.path())
                         : std::make_unique<Program>(name, env, dir_.path(), command->second);
}

void Line::StartSidecar() {
  std::map<std::string, std::string> env = options_.sidecar_env;
  std::string endpoints;
  for (const std::string& name : options_.executors) {
    absl::StrAppend(&endpoints, endpoints.empty() ? "" : ",", name,
                    "=unix:", (dir_ / absl::StrCat(name, ".sock")).string());
  }
  const std::string url = options_.sidecar_redis ? options_.sidecar_redis(server_) : server_.url();
  env.emplace("REDIS_URL", absl::StrReplaceAll(url, {{"://", "://" + options_.redis_login}}));
  env.emplace("RESULTS_DIR", results().string());
  env.emplace("STATE_DIR", (dir_ / "state").string());
  env.emplace("WORKER_ID", "w");
  env.emplace("EXECUTOR_ENDPOINTS", endpoints);
  env.emplace("SIDECAR_LISTEN", sidecar_target());
  env.emplace("METRICS_LISTEN", absl::StrCat("127.0.0.1:", metrics_port_));
  if (!orchestrator_url_.empty()) env.emplace("ORCHESTRATOR_BASE_URL", orchestrator_url_);
  sidecar_ = std::make_unique<Program>("flowmesh-sidecar", env, dir_.path());
}

void Line::StopSidecar() { sidecar_.reset(); }

bool Line::WaitForStatus(const std::string& status, const std::string& worker,
                         absl::Duration timeout) {
  return Eventually([&] { return redis_->HashField("worker:" + worker, "status") == status; },
                    timeout);
}

Json Line::Envelope(const std::string& task_id, const Json& spec, const std::string& worker) {
  return {{"task_id", task_id},
          {"task",
           {{"apiVersion", "flowmesh/v1"},
            {"kind", "Task"},
            {"metadata", {{"name", "test"}}},
            {"spec", spec}}},
          {"task_type", spec.is_object() ? spec.value("taskType", Json()) : Json()},
          {"assigned_worker", worker},
          {"dispatched_at", FormatTimestamp(absl::Now())},
          {"parent_task_id", nullptr}};
}

std::string Line::Dispatch(const Json& spec, const Json& extra, const std::string& worker) {
  const std::string task_id = RandomUuid();
  Json envelope = Envelope(task_id, spec, worker.empty() ? worker_id() : worker);
  envelope.update(extra);
  EXPECT_GE(redis_->Publish("tasks", envelope), 1);
  return task_id;
}

std::vector<std::string> Line::Submit(const std::string& yaml) {
  HttpRequest request;
  request.method = "POST";
  request.url = orchestrator_url_ + "/api/v1/tasks";
  request.headers = {{"Content-Type", "text/yaml"}};
  request.body = yaml;
  absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
  if (!response.ok() || response->status != 200) {
    ADD_FAILURE() << "submit: " << response.status() << " "
                  << (response.ok() ? response->body : "");
    return {};
  }
  std::vector<std::string> ids;
  const Json answer = ParseJson(response->body).value();
  for (const Json& task : answer["tasks"]) {
    ids.push_back(task["task_id"].get<std::string>());
  }
  return ids;
}

Json Line::Get(const std::string& path) {
  HttpRequest request;
  request.url = orchestrator_url_ + path;
  absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
  if (!response.ok() || response->status != 200) {
    ADD_FAILURE() << path << ": " << response.status() << " "
                  << (response.ok() ? absl::StrCat(response->status, " ", response->body) : "");
    return nullptr;
  }
  return ParseJson(response->body).value();
}

Json Line::WaitForRecord(const std::string& task_id, absl::Duration timeout) {
  Json record;
  EXPECT_TRUE(Eventually(
      [&] {
        record = Get("/api/v1/tasks/" + task_id);
        return record.is_object() && (record["status"] == "DONE" || record["status"] == "FAILED");
      },
      timeout))
      << DumpJson(record);
  return record;
}

Json Line::ResultFile(const std::string& task_id, const std::string& file) {
  const absl::StatusOr<std::string> text = ReadFile(results() / task_id / file);
  if (!text.ok()) {
    ADD_FAILURE() << text.status();
    return nullptr;
  }
  return ParseJson(*text).value();
}

}  // namespace flowmesh::testing
