// For tests with a real redis-server: a worker that does what the test says, and the orchestrator
// with its HTTP server in this process.
#pragma once

#include <httplib.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "clients/orchestrator/http_api.h"
#include "clients/orchestrator/orchestrator.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/redis/subscriber.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::orchestrator {

using testing::Eventually;
using testing::RedisServer;

// Speaks the worker's side of Redis; every step is a call.
class ScriptedWorker {
 public:
  ScriptedWorker(const RedisServer& server, std::string id);

  // Hash, set member, heartbeat and events, with status IDLE. `hardware` as in `hardware_json`.
  void Register(const Json& hardware = Json::object());
  void Unregister();
  void DropHeartbeat();
  void SetStatus(const std::string& status);

  // The next envelope addressed to this worker; a failed test after 20 s.
  Json TakeEnvelope();
  bool HasEnvelope();

  void Started(const std::string& task_id) { TaskEvent("TASK_STARTED", task_id, nullptr); }
  // The terminal event, then IDLE, as workers do.
  void Succeed(const std::string& task_id);
  void Fail(const std::string& task_id, const std::string& error);
  void TaskEvent(const char* type, const std::string& task_id, const Json& error);
  std::string StatusInRedis();

 private:
  // MULTI ... EXEC; a failed test when the server refuses it.
  void Transaction(std::vector<redis::Command> commands);

  std::string id_;
  testing::RedisPeer redis_;
  absl::Mutex mutex_;
  std::deque<Json> envelopes_ ABSL_GUARDED_BY(mutex_);
  bool listening_ ABSL_GUARDED_BY(mutex_) = false;
  redis::Subscriber subscriber_;
};

// An orchestrator that serves on a free port.
class TestOrchestrator {
 public:
  explicit TestOrchestrator(const RedisServer& server,
                            const std::function<void(Config&)>& change = nullptr,
                            const Clock& clock = Clock::Real());

  httplib::Client Http() const { return httplib::Client(http_->url()); }
  const std::string& url() const { return http_->url(); }
  Orchestrator& core() { return *core_; }
  std::filesystem::path results() const { return dir_.path(); }

  // Ids of the submitted tasks, in order; a failed test when refused.
  std::vector<std::string> Submit(const std::string& yaml);
  Json Record(const std::string& id);
  bool WaitForStatus(const std::string& id, const std::string& status);
  // Delivers a result over HTTP, as a worker does.
  void PostResult(const std::string& task_id, const Json& result);

 private:
  TempDir dir_;
  std::unique_ptr<Orchestrator> core_;
  std::unique_ptr<HttpApi> http_;
};

}  // namespace flowmesh::orchestrator
