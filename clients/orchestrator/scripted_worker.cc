#include "clients/orchestrator/scripted_worker.h"

#include <gtest/gtest.h>

namespace flowmesh::orchestrator {

ScriptedWorker::ScriptedWorker(const RedisServer& server, std::string id)
    : id_(std::move(id)),
      redis_(server.port()),
      subscriber_(
          redis::ParseRedisUrl(server.url()).value(), {"tasks"}, {},
          [this](std::string_view, std::string_view message) {
            Json envelope = ParseJson(message).value();
            if (envelope["assigned_worker"] != id_) return;
            absl::MutexLock lock(&mutex_);
            envelopes_.push_back(std::move(envelope));
          },
          [this](bool alive, const std::string&) {
            absl::MutexLock lock(&mutex_);
            listening_ = alive;
          }) {
  absl::MutexLock lock(&mutex_);
  EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&listening_), absl::Seconds(10)));
}

void ScriptedWorker::Transaction(std::vector<redis::Command> commands) {
  Json reply;
  for (const redis::Command& command : redis::Transaction(std::move(commands))) {
    reply = redis_.Command(command);
  }
  EXPECT_TRUE(reply.is_array()) << DumpJson(reply);
}

void ScriptedWorker::Register(const Json& hardware) {
  const Json event = {{"type", "REGISTER"},       {"ts", FormatTimestamp(absl::Now())},
                      {"worker_id", id_},         {"status", "STARTING"},
                      {"tags", Json::array()},    {"metrics", Json::object()},
                      {"payload", Json::object()}};
  Transaction({{"SADD", "workers:ids", id_},
               {"HSET", "worker:" + id_, "worker_id", id_, "status", "STARTING", "pid", "7",
                "env_json", "{}", "tags_json", R"(["lab"])", "hardware_json", DumpJson(hardware),
                "cost_per_hour", "1.5"},
               {"PUBLISH", "workers.events", DumpJson(event)}});
  redis_.Command({"SETEX", "worker:" + id_ + ":hb", "120", "now"});
  SetStatus("IDLE");
}

void ScriptedWorker::Unregister() {
  const Json event = {{"type", "UNREGISTER"},     {"ts", ""},        {"worker_id", id_},
                      {"status", nullptr},        {"tags", nullptr}, {"metrics", Json::object()},
                      {"payload", Json::object()}};
  Transaction({{"SREM", "workers:ids", id_},
               {"DEL", "worker:" + id_},
               {"DEL", "worker:" + id_ + ":hb"},
               {"PUBLISH", "workers.events", DumpJson(event)}});
}

void ScriptedWorker::DropHeartbeat() { redis_.Command({"DEL", "worker:" + id_ + ":hb"}); }

void ScriptedWorker::SetStatus(const std::string& status) {
  const Json event = {{"type", "STATUS"},         {"ts", FormatTimestamp(absl::Now())},
                      {"worker_id", id_},         {"status", status},
                      {"tags", nullptr},          {"metrics", Json::object()},
                      {"payload", Json::object()}};
  Transaction({{"HSET", "worker:" + id_, "status", status},
               {"PUBLISH", "workers.events", DumpJson(event)}});
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
  // The orchestrator marks the worker after it has published; a status of ours must come later.
  EXPECT_TRUE(Eventually([this] { return StatusInRedis() == "RUNNING"; }));
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
  redis_.Publish("tasks.events", event);
}

void ScriptedWorker::Succeed(const std::string& task_id) {
  TaskEvent("TASK_SUCCEEDED", task_id, nullptr);  // the orchestrator marks the worker IDLE
}

void ScriptedWorker::Fail(const std::string& task_id, const std::string& error) {
  TaskEvent("TASK_FAILED", task_id, error);
  SetStatus("IDLE");
}

std::string ScriptedWorker::StatusInRedis() { return redis_.HashField("worker:" + id_, "status"); }

TestOrchestrator::TestOrchestrator(const RedisServer& server,
                                   const std::function<void(Config&)>& change, const Clock& clock) {
  Config config;
  config.redis = redis::ParseRedisUrl(server.url()).value();
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
