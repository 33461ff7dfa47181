// The sidecar's local gRPC API (proto/flowmesh/v1/sidecar.proto), with and without Redis, and two
// processes that claim one worker id.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "clients/cpp/sidecar_client.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "tests/integration/in_process_executor.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using client::SidecarClient;
using ::testing::HasSubstr;

const Json kEcho = {{"spec", {{"taskType", "echo"}, {"data", {{"items", {"are you there"}}}}}}};

TEST(LocalApiTest, ASubmittedTaskIsWatchedToItsEndAndTold) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto accepted = sidecar.Submit(kEcho, "local-1");
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_EQ(accepted->worker_id(), "w");
  std::vector<uint64_t> sequences;
  const auto record = sidecar.Watch("local-1", [&](const v1::TaskUpdate& update) {
    if (update.has_event()) sequences.push_back(update.event().sequence());
  });
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::SUCCEEDED);
  EXPECT_EQ(record->source(), "local");
  EXPECT_EQ(ParseJson(record->result_json()).value(), line.ResultFile("local-1"));
  EXPECT_THAT(sequences, ::testing::SizeIs(::testing::Ge(1u)));
  // As if its envelope had come over Redis.
  const auto done = line.events().WaitForTerminal("local-1");
  ASSERT_TRUE(done);
  EXPECT_EQ((*done)["type"], "TASK_SUCCEEDED");

  const auto again = sidecar.Submit(kEcho, "local-1");
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(again->already_known());
  const auto list = sidecar.List();
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->tasks_size(), 1);
  EXPECT_EQ(list->tasks(0).task_id(), "local-1");
  EXPECT_EQ(sidecar.Get("local-1")->result_json(), record->result_json());
}

TEST(LocalApiTest, ATaskOfAnEarlierLifeStillShowsItsResult) {
  Line line;
  const Json elsewhere = {
      {"taskType", "echo"},
      {"output", {{"destination", {{"type", "local"}, {"path", "elsewhere"}}}}}};
  const std::string id = line.Dispatch(elsewhere);
  ASSERT_TRUE(line.events().WaitForTerminal(id));
  const std::string result = SidecarClient(line.sidecar_target()).Get(id)->result_json();
  EXPECT_THAT(result, HasSubstr("elsewhere"));
  line.StopSidecar();
  line.StartSidecar();
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(SidecarClient(line.sidecar_target()).Get(id)->result_json(), result);
}

TEST(LocalApiTest, MistakesHaveTheCodesOfTheContract) {
  Line line({.executors = {"a", "b"}});
  SidecarClient sidecar(line.sidecar_target());
  const auto no_map = sidecar.Submit(Json::array());
  EXPECT_TRUE(absl::IsInvalidArgument(no_map.status())) << no_map.status();
  const auto no_spec = sidecar.Submit(Json::object());
  EXPECT_TRUE(absl::IsInvalidArgument(no_spec.status()));
  EXPECT_THAT(std::string(no_spec.status().message()), HasSubstr("spec: required"));
  EXPECT_TRUE(absl::IsInvalidArgument(sidecar.Submit(kEcho, "../x").status()));
  const auto nobody = sidecar.Submit(kEcho, "", "c");
  EXPECT_TRUE(absl::IsInvalidArgument(nobody.status()));
  EXPECT_THAT(std::string(nobody.status().message()), HasSubstr("a, b"));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Get("unknown").status()));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Watch("unknown").status()));
  EXPECT_TRUE(absl::IsNotFound(sidecar.Cancel("unknown").status()));
  const auto chosen = sidecar.Submit(kEcho, "", "b");
  ASSERT_TRUE(chosen.ok());
  EXPECT_EQ(chosen->worker_id(), "w.b");
}

// An executor that a cancellation overtakes: the task that it is to end comes later.
class OvertakenExecutor final : public InProcessExecutor {
 public:
  std::string document() const {
    absl::MutexLock lock(&mutex_);
    return document_;
  }
  // Whether it was told so while it had the task.
  bool was_cancelled() const {
    absl::MutexLock lock(&mutex_);
    return cancels_ > 1;
  }

  grpc::Status Execute(grpc::ServerContext*, const v1::ExecuteRequest* request,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override {
    {
      absl::MutexLock lock(&mutex_);
      document_ = request->document_json();
    }
    WaitForCancels(1);
    v1::TaskEvent event;
    event.mutable_started();
    writer->Write(event);
    WaitForCancels(2);
    event.set_sequence(1);
    event.mutable_failed()->set_code(v1::TaskFailed::CANCELLED);
    writer->Write(event);
    return grpc::Status::OK;
  }
  grpc::Status Cancel(grpc::ServerContext*, const v1::CancelRequest*,
                      v1::CancelResponse* response) override {
    absl::MutexLock lock(&mutex_);
    response->set_was_running(++cancels_ > 1);
    return grpc::Status::OK;
  }

 private:
  void WaitForCancels(int count) {
    const auto came = [&] {
      mutex_.AssertReaderHeld();
      return cancels_ >= count;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&came), absl::Seconds(10));
  }

  mutable absl::Mutex mutex_;
  int cancels_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string document_ ABSL_GUARDED_BY(mutex_);
};

TEST(LocalApiTest, ACancellationThatOvertakesItsTaskIsNotLost) {
  TempDir dir;
  OvertakenExecutor executor;
  const auto server = executor.Serve(dir / "e");
  Line line({.executors = {}, .sidecar_env = {{"EXECUTOR_ENDPOINTS", server->target()}}});
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  SidecarClient sidecar(line.sidecar_target());
  Json document = kEcho;
  document["task_id"] = 17;
  const auto accepted = sidecar.Submit(document);
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  ASSERT_EQ(accepted->task_id(), "17");
  ASSERT_TRUE(Eventually([&] { return sidecar.Get("17")->state() == v1::RUNNING; }));
  EXPECT_TRUE(sidecar.Cancel("17").ok());
  const auto record = sidecar.Watch("17");
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::FAILED);
  EXPECT_TRUE(executor.was_cancelled());
  EXPECT_EQ(ParseJson(executor.document()).value()["task_id"], "17");
}

TEST(LocalApiTest, AResultThatWaitsForItsDeliveryIsCancelled) {
  std::atomic<bool> over{false};
  const TestHttpServer receiver([&](const httplib::Request&, httplib::Response&) {
    Eventually([&] { return over.load(); });
  });
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  // They keep all who deliver busy.
  Json held = kEcho;
  held["spec"]["output"]["destination"] = {{"type", "http"}, {"url", receiver.url()}};
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(sidecar.Submit(held, absl::StrCat("held-", i)).ok());
  ASSERT_TRUE(Eventually([&] { return receiver.requests().size() == 4; }));
  ASSERT_TRUE(sidecar.Submit(kEcho, "waits").ok());
  ASSERT_TRUE(Eventually([&] {
    return sidecar.Get("waits")->state() == v1::RUNNING &&
           sidecar.Worker()->workers(0).running_task_id().empty();
  }));
  const auto answer = sidecar.Cancel("waits");
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->was_active());
  over = true;
  const auto record = sidecar.Watch("waits");
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::FAILED);
  EXPECT_THAT(record->error(), HasSubstr("cancelled"));
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(sidecar.Watch(absl::StrCat("held-", i))->state(), v1::SUCCEEDED);
  }
}

TEST(LocalApiTest, DescribesItsWorkers) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto answer = sidecar.Worker();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->redis(), "connected");
  ASSERT_EQ(answer->workers_size(), 1);
  const v1::Worker& worker = answer->workers(0);
  EXPECT_EQ(worker.worker_id(), "w");
  EXPECT_EQ(worker.status(), "IDLE");
  EXPECT_TRUE(worker.executor_connected());
  EXPECT_THAT(worker.executor().runnable_task_types(), ::testing::Contains("echo"));
  EXPECT_EQ(ParseJson(worker.hardware_json()).value(),
            ParseJson(line.redis().HashField("worker:w", "hardware_json")).value());
}

TEST(LocalApiTest, DrainEndsTheProcessAsSigtermDoes) {
  Line line;
  SidecarClient sidecar(line.sidecar_target());
  const auto drained = sidecar.Drain();
  ASSERT_TRUE(drained.ok()) << drained.status();
  const auto exit = line.sidecar().process().Wait(absl::Seconds(15));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 0);
}

// Nobody runs it again: it came from here.
TEST(LocalApiTest, AnEndThatNobodyReceivesHoldsNoDrainUp) {
  Line line;
  line.StopObserving();
  SidecarClient sidecar(line.sidecar_target());
  ASSERT_TRUE(sidecar.Submit(kEcho, "local").ok());
  EXPECT_EQ(sidecar.Watch("local")->state(), v1::SUCCEEDED);
  ASSERT_TRUE(sidecar.Drain().ok());
  const auto exit = line.sidecar().process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  line.ObserveAgain();
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 0);
  // It is told all the same, once somebody listens.
  line.StartSidecar();
  EXPECT_TRUE(line.events().WaitForTerminal("local")) << line.sidecar().Output();
}

TEST(LocalApiTest, WorksWithoutRedis) {
  TempDir dir;
  const std::string executor = absl::StrCat("unix:", (dir / "e.sock").string());
  const std::string target = absl::StrCat("unix:", (dir / "s.sock").string());
  Program executor_program("flowmesh-executor",
                           {{"EXECUTOR_LISTEN", executor}, {"EXECUTOR_DEVICES", "cpu"}},
                           dir.path());
  Program program("flowmesh-sidecar",
                  {{"REDIS_URL", "none"},
                   {"EXECUTOR_ENDPOINTS", executor},
                   {"SIDECAR_LISTEN", target},
                   {"METRICS_LISTEN", "off"},
                   {"RESULTS_DIR", dir / "results"},
                   {"STATE_DIR", dir / "state"}},
                  dir.path());
  SidecarClient sidecar(target);
  ASSERT_TRUE(Eventually([&] {
    const auto answer = sidecar.Worker();
    return answer.ok() && answer->workers(0).status() == "IDLE";
  }));
  EXPECT_EQ(sidecar.Worker()->redis(), "none");
  const auto accepted = sidecar.Submit(kEcho);
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  const auto record = sidecar.Watch(accepted->task_id());
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::SUCCEEDED);
  EXPECT_LT(program.CpuTimeIn(absl::Seconds(2)), absl::Milliseconds(300));  // it has nothing to do
  program.process().Signal(SIGTERM);
  const auto exit = program.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
}

TEST(LocalApiTest, AnOlderProcessWithTheSameIdStepsBack) {
  Line line;
  TempDir dir;
  Program newer("flowmesh-sidecar",
                {{"REDIS_URL", line.redis_url()},
                 {"WORKER_ID", "w"},
                 {"EXECUTOR_ENDPOINTS", absl::StrCat("unix:", (line.dir() / "e0.sock").string())},
                 {"SIDECAR_LISTEN", absl::StrCat("unix:", (dir / "s.sock").string())},
                 {"METRICS_LISTEN", "off"},
                 {"RESULTS_DIR", dir / "results"},
                 {"STATE_DIR", dir / "state"}},
                dir.path());
  const auto exit = line.sidecar().process().Wait(absl::Seconds(20));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 3);
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("another process has taken the worker id w"));
  // The keys are the newer one's, and it works.
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  const std::string id = line.Dispatch(kEcho["spec"]);
  EXPECT_EQ((*line.events().WaitForTerminal(id))["type"], "TASK_SUCCEEDED");
}

TEST(LocalApiTest, TheSameStateFolderIsRefusedAtStart) {
  Line line;
  Program second("flowmesh-sidecar",
                 {{"REDIS_URL", line.redis_url()},
                  {"WORKER_ID", "w"},
                  {"SIDECAR_LISTEN", absl::StrCat("unix:", (line.dir() / "2.sock").string())},
                  {"METRICS_LISTEN", "off"},
                  {"RESULTS_DIR", (line.dir() / "results").string()},
                  {"STATE_DIR", (line.dir() / "state").string()}},
                 line.dir());
  const auto exit = second.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 1);
  EXPECT_THAT(second.Output(), HasSubstr("STATE_DIR"));
}

}  // namespace
}  // namespace flowmesh::testing
