#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <thread>

#include "clients/cpp/fake_sidecar.h"
#include "clients/cpp/local_worker.h"
#include "clients/cpp/orchestrator_client.h"
#include "clients/cpp/sidecar_client.h"
#include "clients/orchestrator/scripted_worker.h"
#include "common/clock.h"

namespace flowmesh::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const Json kEcho = {{"spec", {{"taskType", "echo"}}}};

TEST(SidecarClientTest, SubmitsWatchesAndReads) {
  FakeSidecar fake;
  SidecarClient sidecar(fake.target());
  const auto accepted = sidecar.Submit(kEcho, "mine").value();
  EXPECT_EQ(accepted.task_id(), "mine");
  EXPECT_TRUE(sidecar.Submit(kEcho, "mine").value().already_known());
  std::vector<v1::TaskState> states;
  const auto record = sidecar.Watch(
      "mine", [&](const v1::TaskUpdate& update) { states.push_back(update.record().state()); });
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_THAT(states, ElementsAre(v1::RUNNING, v1::SUCCEEDED));
  const Json json = ToJson(*record);
  EXPECT_EQ(json["state"], "SUCCEEDED");
  EXPECT_EQ(json["result"]["echo"]["taskType"], "echo");
  EXPECT_EQ(json["received_at"], "2025-11-03T09:00:00.000000+00:00");
  EXPECT_EQ(sidecar.Get("mine").value().state(), v1::SUCCEEDED);
  EXPECT_EQ(sidecar.List().value().tasks_size(), 1);
  EXPECT_EQ(ToJson(sidecar.Worker().value())["workers"][0]["hardware"]["cpu"]["logical_cores"], 2);
  EXPECT_EQ(sidecar.Drain().value().tasks_running(), 2u);
  EXPECT_FALSE(sidecar.Cancel("mine").value().was_active());
}

TEST(SidecarClientTest, ErrorsKeepTheirCodes) {
  FakeSidecar fake;
  SidecarClient sidecar(fake.target());
  EXPECT_EQ(sidecar.Submit(Json::array()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sidecar.Get("nobody").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(sidecar.Watch("nobody").status().code(), absl::StatusCode::kNotFound);
  TempDir dir;
  SidecarClient nobody("unix:" + (dir / "none.sock").string());
  const absl::Status away = nobody.Get("x").status();
  EXPECT_EQ(away.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(away), HasSubstr("no sidecar answers at unix:"));
  const double begin = MonotonicSeconds();
  EXPECT_EQ(nobody.Watch("x").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(MonotonicSeconds() - begin, 5) << "it never was there to come back";
}

// By itself gRPC looks after a connection that nobody waits for once in five seconds.
TEST(SidecarClientTest, ASidecarThatComesIsFoundAtOnce) {
  TempDir dir;
  const std::string target = "unix:" + (dir / "s.sock").string();
  SidecarClient sidecar(target);
  EXPECT_FALSE(sidecar.WaitUntilConnected(absl::Milliseconds(10)));
  EXPECT_EQ(sidecar.Worker().status().code(), absl::StatusCode::kUnavailable);
  const FakeSidecar fake(target);
  const double begin = MonotonicSeconds();
  EXPECT_TRUE(sidecar.WaitUntilConnected(absl::Seconds(30)));
  EXPECT_TRUE(sidecar.Worker().ok());
  EXPECT_LT(MonotonicSeconds() - begin, 3);
}

TEST(SidecarClientTest, ABrokenWatchGoesOnWhereItStopped) {
  FakeSidecar fake;
  SidecarClient sidecar(fake.target());
  ASSERT_TRUE(sidecar.Submit(kEcho, "t").ok());
  fake.BreakNextWatch();
  const auto record = sidecar.Watch("t");
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::SUCCEEDED);
  EXPECT_THAT(fake.WatchStarts(), ElementsAre(0u, 1u));
}

TEST(SidecarClientTest, WatchingCanBeStoppedFromAnotherThread) {
  FakeSidecar fake;
  SidecarClient sidecar(fake.target());
  ASSERT_TRUE(sidecar.Submit({{"spec", {{"hang", true}}}}, "t").ok());
  std::thread stopper;
  const auto record = sidecar.Watch("t", [&](const v1::TaskUpdate&) {
    if (!stopper.joinable()) stopper = std::thread([&] { sidecar.StopWatching(); });
  });
  stopper.join();
  EXPECT_EQ(record.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sidecar.Get("t").value().state(), v1::RUNNING);
  EXPECT_EQ(sidecar.Watch("t").status().code(), absl::StatusCode::kCancelled);
}

TEST(OrchestratorClientTest, SubmitsWaitsAndReads) {
  orchestrator::RedisServer redis;
  orchestrator::TestOrchestrator server(redis, [](orchestrator::Config& c) { c.token = "secret"; });
  orchestrator::ScriptedWorker worker(redis, "w");
  worker.Register();
  OrchestratorClient client(server.url() + "/", "secret");
  const Json tasks = client.Submit("spec: {taskType: echo}").value();
  const std::string id = tasks[0]["task_id"];
  std::vector<std::string> seen;
  std::thread peer([&] {
    worker.TakeEnvelope();
    const Json result = {{"task_id", id}, {"result", {{"ok", true}}}, {"worker_id", "w"}};
    EXPECT_TRUE(server.core().StoreResult(id, result).ok());
    worker.Succeed(id);
  });
  const auto records = client.Wait(
      {id}, [&](const Json& record) { seen.push_back(record["status"]); }, nullptr);
  peer.join();
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ((*records)[0]["status"], "DONE");
  EXPECT_EQ(seen.back(), "DONE");
  EXPECT_EQ(client.Result(id).value()["result"]["ok"], true);
  EXPECT_EQ(client.Tasks().value().size(), 1u);
  EXPECT_EQ(client.Workers().value()[0]["worker_id"], "w");

  EXPECT_EQ(client.Task("nobody").status().code(), absl::StatusCode::kNotFound);
  const absl::Status bad = client.Submit("spec: 3").status();
  EXPECT_EQ(bad.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(bad), "spec: expected a map, got 3");
  EXPECT_EQ(OrchestratorClient(server.url(), "").Tasks().status().code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(OrchestratorClient(server.url(), "x").Tasks().status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(client.Wait({id + "x"}, nullptr, [] { return true; }).status().code(),
            absl::StatusCode::kCancelled);
  OrchestratorClient nobody("http://127.0.0.1:1", "");
  EXPECT_EQ(nobody.Tasks().status().code(), absl::StatusCode::kUnavailable);
  const double begin = MonotonicSeconds();
  EXPECT_EQ(nobody.Wait({id}, nullptr, nullptr).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_LT(MonotonicSeconds() - begin, 5) << "it never was there to come back";
}

// Programs named as the real ones, which do what a test needs.
class LocalWorkerTest : public ::testing::Test {
 protected:
  LocalWorkerTest() : path_(std::getenv("PATH")) {
    ::setenv("PATH", (programs_.path().string() + ":/bin:/usr/bin").c_str(), 1);
    options_.results_dir = results_ / "r";
    options_.start_limit = absl::Seconds(1);
  }
  ~LocalWorkerTest() override { ::setenv("PATH", path_.c_str(), 1); }

  void AddProgram(const std::string& name, const std::string& script) {
    const auto path = programs_ / name;
    ASSERT_TRUE(AppendFile(path, "#!/bin/sh\n" + script).ok());
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  }

  std::string path_;
  TempDir programs_, results_;
  LocalWorkerOptions options_;
};

TEST_F(LocalWorkerTest, SaysWhichProgramIsMissing) {
  const auto worker = LocalWorker::Start(options_);
  EXPECT_EQ(worker.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(worker.status()), HasSubstr("flowmesh-executor stands neither"));
}

TEST_F(LocalWorkerTest, ShowsTheLastWordsOfAProgramThatEnds) {
  AddProgram("flowmesh-executor", "echo one; echo EXECUTOR_DEVICES: bad >&2; exit 1\n");
  AddProgram("flowmesh-sidecar", "exec sleep 60\n");
  const auto worker = LocalWorker::Start(options_);
  EXPECT_EQ(worker.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(worker.status()),
              HasSubstr("flowmesh-executor ended with exit code 1:\none\nEXECUTOR_DEVICES: bad"));
}

TEST_F(LocalWorkerTest, GivesUpInTimeAndStopsWhatItStarted) {
  AddProgram("flowmesh-executor", "echo $$ > \"$PIDS/executor\"; exec sleep 60\n");
  AddProgram("flowmesh-sidecar", "echo $$ > \"$PIDS/sidecar\"; exec sleep 60\n");
  TempDir pids;
  ::setenv("PIDS", pids.path().c_str(), 1);
  const auto worker = LocalWorker::Start(options_);
  EXPECT_EQ(worker.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(worker.status()), HasSubstr("was not ready after 1s"));
  for (const char* name : {"executor", "sidecar"}) {
    const pid_t pid = std::stoi(ReadFile(pids / name).value());
    EXPECT_EQ(::kill(pid, 0), -1) << name;
  }
  EXPECT_EQ(LocalWorker::Start(options_, [] { return true; }).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace flowmesh::client
