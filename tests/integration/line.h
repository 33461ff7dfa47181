// The whole line as processes of one test: redis-server, executors, sidecar and, where asked, the
// local orchestrator, on free loopback ports and sockets in a temporary folder. Everything ends
// with the object.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/json.h"
#include "common/subprocess.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::testing {

// A program of this project with its log in a file, which is shown when a test fails.
class Program {
 public:
  // `command`: something else than the program of that name.
  Program(std::string name, std::map<std::string, std::string> env,
          const std::filesystem::path& directory, std::vector<std::string> command = {});
  ~Program();

  Subprocess& process() { return *process_; }
  // Its output so far, stdout and stderr together.
  std::string Output() const;
  // Waits until its output holds `text`; false after `timeout` or when it ended first.
  bool WaitForOutput(const std::string& text, absl::Duration timeout = absl::Seconds(20));
  // SIGSTOP, and waits until it stands: what reaches it stays there.
  void Freeze();
  double ResidentMegabytes() const;
  // Processor time that it uses while `duration` goes by.
  absl::Duration CpuTimeIn(absl::Duration duration) const;
  // The processes that it has started: an executor's ranks.
  std::vector<pid_t> Children() const;

 private:
  std::string name_;
  std::filesystem::path log_;
  std::optional<Subprocess> process_;
};

struct LineOptions {
  std::vector<std::string> executors = {"e0"};
  // Of executors that are not flowmesh-executor, by name.
  std::map<std::string, std::vector<std::string>> executor_commands;
  bool orchestrator = false;
  std::map<std::string, std::string> sidecar_env;
  std::map<std::string, std::string> executor_env;
  std::map<std::string, std::string> orchestrator_env;
  std::vector<std::string> redis_setup;             // a command for the server, before all else
  std::string redis_login;                          // `user:password@`, the sidecar's
  std::function<void(const Json& event)> on_event;  // gets what events() records, from its thread
  // Makes the sidecar's REDIS_URL of the server; by default the server's own.
  std::function<std::string(RedisServer& server)> sidecar_redis;
};

class Line {
 public:
  explicit Line(LineOptions options = {});
  ~Line();

  RedisServer& server() { return server_; }
  RedisPeer& redis() { return *redis_; }
  EventRecorder& events() { return *events_; }
  const std::filesystem::path dir() const { return dir_.path(); }
  std::filesystem::path results() const { return dir_.path() / "results"; }
  Program& sidecar() { return *sidecar_; }
  Program& executor(const std::string& name) { return *executors_.at(name); }
  const std::string& orchestrator_url() const { return orchestrator_url_; }
  std::string sidecar_target() const;
  std::string metrics_url() const;

  // `w` with one executor, else `w.<executor>`.
  std::string worker_id(const std::string& executor = "") const;
  std::string redis_url() const { return server_.url(); }

  // redis() and events() anew, after their connections broke; what was recorded is forgotten.
  // `port`: of another server that has become the master.
  void ObserveAgain(int port = 0);
  // Nobody hears events, until ObserveAgain; events() is gone.
  void StopObserving();

  void StartSidecar();
  void StopSidecar();
  void StartExecutor(const std::string& name);

  // Waits until the worker's hash says `status`.
  bool WaitForStatus(const std::string& status, const std::string& worker,
                     absl::Duration timeout = absl::Seconds(20));

  // An envelope for `worker`, published on `tasks`; returns its task id.
  std::string Dispatch(const Json& spec, const Json& extra = Json::object(),
                       const std::string& worker = "");
  static Json Envelope(const std::string& task_id, const Json& spec, const std::string& worker);

  // Submits YAML to the orchestrator; returns the task ids in order.
  std::vector<std::string> Submit(const std::string& yaml);
  // GET on the orchestrator; fails the test unless the answer is 200.
  Json Get(const std::string& path);
  // Waits until the record's status is DONE or FAILED and returns the record.
  Json WaitForRecord(const std::string& task_id, absl::Duration timeout = absl::Seconds(120));

  // RESULTS_DIR/<task_id>/<file>.
  Json ResultFile(const std::string& task_id, const std::string& file = "responses.json");

 private:
  TempDir dir_;
  LineOptions options_;
  RedisServer server_;
  std::unique_ptr<RedisPeer> redis_;
  std::unique_ptr<EventRecorder> events_;
  std::map<std::string, std::unique_ptr<Program>> executors_;
  std::unique_ptr<Program> orchestrator_;
  std::unique_ptr<Program> sidecar_;
  std::string orchestrator_url_;
  int metrics_port_ = 0;
};

// A small checkpoint of tests/goldens/models.
std::filesystem::path GoldenModel(const std::string& name);

}  // namespace flowmesh::testing
