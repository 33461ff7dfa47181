#include "clients/orchestrator/scripted_worker.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"

namespace flowmesh::orchestrator {

bool Eventually(const std::function<bool()>& holds) {
  const Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Monotonic() + absl::Seconds(20);
  while (!holds()) {
    if (clock.Monotonic() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

RedisServer::RedisServer() : port_(FreeLoopbackPort().value()) { Launch(); }

RedisAddress RedisServer::address() const {
  RedisAddress address;
  address.host = "127.0.0.1";
  address.port = port_;
  return address;
}

void RedisServer::Launch() {
  const UniqueFd log(
      ::open((dir_ / "redis.log").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  SubprocessOptions options;
  options.argv = {"redis-server", "--port", absl::StrCat(port_), "--bind", "127.0.0.1",
                  "--save",       "",       "--appendonly",      "no",     "--dir",
                  dir_.path()};
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  process_ = Subprocess::Start(options).value();
  Redis redis(address());
  EXPECT_TRUE(Eventually([&] { return redis.Run({"PING"}).ok(); }))
      << "redis-server does not start";
}

void RedisServer::Restart() {
  process_->Terminate(absl::Seconds(5));
  Launch();
}

ScriptedWorker::ScriptedWorker(const RedisServer& server, std::string id)
    : id_(std::move(id)),
      redis_(server.address()),
      subscriber_(server.address(), {"tasks"}, [this](std::string_view, std::string_view message) {
        Json envelope = ParseJson(message).value();
        if (envelope["assigned_worker"] != id_) return;
        absl::MutexLock lock(&mutex_);
        envelopes_.push_back(std::move(envelope));
      }) {
  EXPECT_TRUE(subscriber_.WaitSubscribed(absl::Seconds(10)));
}

void ScriptedWorker::Register(const Json& hardware) {
  const Json event = {{"type", "REGISTER"},       {"ts", FormatTimestamp(absl::Now())},
                      {"worker_id", id_},         {"status", "STARTING"},
                      {"tags", Json::array()},    {"metrics", Json::object()},
                      {"payload", Json::object()}};
  EXPECT_TRUE(redis_
                  .Transaction({{"SADD", "workers:ids", id_},
                                {"HSET", "worker:" + id_, "worker_id", id_, "status", "STARTING",
                                 "pid", "7", "env_json", "{}", "tags_json", R"(["lab"])",
                                 "hardware_json", DumpJson(hardware), "cost_per_hour", "1.5"},
                                {"PUBLISH", "workers.events", DumpJson(event)}})
                  .ok());
  EXPECT_TRUE(redis_.Run({"SETEX", "worker:" + id_ + ":hb", "120", "now"}).ok());
  SetStatus("IDLE");
}

void ScriptedWorker::Unregister() {
  const Json event = {{"type", "UNREGISTER"},     {"ts", ""},        {"worker_id", id_},
                      {"status", nullptr},        {"tags", nullptr}, {"metrics", Json::object()},
                      {"payload", Json::object()}};
  EXPECT_TRUE(redis_
                  .Transaction({{"SREM", "workers:ids", id_},
                                {"DEL", "worker:" + id_},
                                {"DEL", "worker:" + id_ + ":hb"},
                                {"PUBLISH", "workers.events", DumpJson(event)}})
                  .ok());
}

void ScriptedWorker::DropHeartbeat() {
  EXPECT_TRUE(redis_.Run({"DEL", "worker:" + id_ + ":hb"}).ok());
}

void ScriptedWorker::SetStatus(const std::string& status) {
  const Json event = {{"type", "STATUS"},         {"ts", FormatTimestamp(absl::Now())},
                      {"worker_id", id_},         {"status", status},
                      {"tags", nullptr},          {"metrics", Json::object()},
                      {"payload", Json::object()}};
  EXPECT_TRUE(redis_
                  .Transaction({{"HSET", "worker:" + id_, "status", status},
                                {"PUBLISH", "workers.events", DumpJson(event)}})
                  .ok());
}

bool ScriptedWorker::HasEnvelope() {
  absl::MutexLock lock(&mutex_);
  return !envelopes_.empty();
}

Json ScriptedWorker::TakeEnvelope() {
  if (!Eventually([this] { return HasEnvelope(); })) {
    ADD_FAILURE() << "worker " << id_ << " got no task";
    return Json::object();
  }
  absl::MutexLock lock(&mutex_);
  Json envelope = std::move(envelopes_.front());
  envelopes_.pop_front();
  return envelope;
}

void ScriptedWorker::TaskEvent(const char* type, const std::string& task_id, const Json& error) {
  const Json event = {{"type", type},
                      {"ts", FormatTimestamp(absl::Now())},
                      {"worker_id", id_},
                      {"task_id", task_id},
                      {"status", nullptr},
                      {"error", error},
                      {"payload", {{"taskType", "echo"}}}};
  EXPECT_TRUE(redis_.Run({"PUBLISH", "tasks.events", DumpJson(event)}).ok());
}

void ScriptedWorker::Succeed(const std::string& task_id) {
  TaskEvent("TASK_SUCCEEDED", task_id, nullptr);
  SetStatus("IDLE");
}

void ScriptedWorker::Fail(const std::string& task_id, const std::string& error) {
  TaskEvent("TASK_FAILED", task_id, error);
  SetStatus("IDLE");
}

std::string ScriptedWorker::StatusInRedis() {
  return ReplyText(*redis_.Run({"HGET", "worker:" + id_, "status"}).value());
}

TestOrchestrator::TestOrchestrator(const RedisServer& server,
                                   const std::function<void(Config&)>& change, const Clock& clock) {
  Config config;
  config.redis = server.address();
  config.results_dir = dir_.path();
  config.listen.host = "127.0.0.1";
  config.listen.port = 0;
  if (change) change(config);
  core_ = std::make_unique<Orchestrator>(std::move(config), clock);
  EXPECT_TRUE(core_->Start().ok());
  http_ = std::make_unique<HttpApi>(*core_);
  EXPECT_TRUE(http_->Start().ok());
}

std::vector<std::string> TestOrchestrator::Submit(const std::string& yaml) {
  const absl::StatusOr<Json> answer = core_->Submit(yaml);
  EXPECT_TRUE(answer.ok()) << answer.status();
  std::vector<std::string> ids;
  if (!answer.ok()) return ids;
  for (const Json& task : (*answer)["tasks"]) ids.push_back(task["task_id"]);
  return ids;
}

Json TestOrchestrator::Record(const std::string& id) {
  return core_->Task(id).value_or(Json::object());
}

bool TestOrchestrator::WaitForStatus(const std::string& id, const std::string& status) {
  return Eventually([&] { return Record(id)["status"] == status; });
}

void TestOrchestrator::PostResult(const std::string& task_id, const Json& result) {
  const Json body = {{"task_id", task_id}, {"result", result}, {"worker_id", "w"}};
  const auto answer = Http().Post("/api/v1/results", DumpJson(body), "application/json");
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200) << answer->body;
}

}  // namespace flowmesh::orchestrator
