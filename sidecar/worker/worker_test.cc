// A worker without Redis. Its executor never comes, and what it takes stays in its queue, unless a
// test serves one.
#include "sidecar/worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "tests/integration/eventually.h"
#include "tests/integration/in_process_executor.h"

namespace flowmesh::sidecar {
namespace {

using ::flowmesh::testing::Eventually;

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() {
    WorkerOptions options;
    options.worker_id = "w";
    options.results_dir = dir_.path();
    options.max_spool_bytes = 1000;
    options.max_undelivered_bytes = 100;
    worker_ = std::make_unique<Worker>(std::move(options),
                                       Registration{.worker_id = "w", .instance_id = "0123456789"},
                                       WorkerParts{.clock = clock_,
                                                   .publisher = publisher_,
                                                   .executor = link_,
                                                   .deliverer = deliverer_,
                                                   .tasks = tasks_,
                                                   .quarantine = quarantine_,
                                                   .journal = *journal_,
                                                   .announcer = announcer_,
                                                   .metrics = metrics_});
    worker_->Register();
  }
  ~WorkerTest() override {
    worker_->Stop();
    announcer_.Stop();
    journal_.reset();  // its last answers still reach the worker
  }

  // A task whose document has somewhat more than `bytes`.
  Worker::Acceptance Accept(const std::string& id, size_t bytes) {
    const Json document = {{"spec", {{"taskType", "echo"}, {"text", std::string(bytes, 'x')}}}};
    const Worker::Acceptance answer =
        worker_->Accept(MakeLocalEnvelope(document, id, "w", "then"), "redis", bytes);
    journal_->Flush();  // the quota is of what is on disk
    return answer;
  }

  const Clock& clock_ = Clock::Real();
  TempDir dir_;
  NoPublisher publisher_;
  ExecutorLink link_{"e0", "unix:" + (dir_ / "executor").string(), {}, clock_, [] {}};
  Deliverer deliverer_{{}, clock_};
  TaskTable tasks_;
  Quarantine quarantine_{{}, clock_};
  std::unique_ptr<Journal> journal_ = Journal::Open(dir_ / "journal.db", {}, clock_).value();
  Announcer announcer_{{.floor = absl::ZeroDuration()}, clock_, publisher_};
  SidecarMetrics metrics_{"1"};
  std::unique_ptr<Worker> worker_;
};

// Promise P9: whoever is superseded takes no more work, though its subscriber still hears of it.
TEST_F(WorkerTest, WhoGivesUpTakesNothing) {
  EXPECT_EQ(Accept("before", 10), Worker::Acceptance::kQueued);
  worker_->GiveUp();
  EXPECT_EQ(Accept("after", 10), Worker::Acceptance::kDraining);
}

// Promise P7: nothing that was taken is dropped for want of room; new work is refused.
TEST_F(WorkerTest, AFullSpoolRefusesNewWorkAndKeepsTheOld) {
  ASSERT_EQ(Accept("old", 600), Worker::Acceptance::kQueued);
  EXPECT_EQ(Accept("too much", 600), Worker::Acceptance::kFull);
  EXPECT_EQ(tasks_.Find("too much")->state(), v1::FAILED);
  EXPECT_EQ(tasks_.Find("too much")->error(),
            "the spool is full (1000 bytes in the journal): results wait for the orchestrator");
  EXPECT_EQ(tasks_.Find("old")->state(), v1::QUEUED);
  EXPECT_EQ(journal_->stats().open_tasks, 1u);
  EXPECT_EQ(Accept("small", 100), Worker::Acceptance::kQueued);  // there is room for that
  // The end of a task makes room, once it was told.
  EXPECT_TRUE(worker_->Cancel("old", "no longer wanted"));
  ASSERT_TRUE(Eventually([&] { return journal_->stats().open_tasks == 1; }));
  EXPECT_EQ(Accept("another", 600), Worker::Acceptance::kQueued);
}

// Its results have as many bytes as a result may have.
class QuickExecutor final : public testing::InProcessExecutor {
 public:
  int runs() const { return runs_; }

  grpc::Status Execute(grpc::ServerContext*, const v1::ExecuteRequest*,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override {
    v1::TaskEvent event;
    event.mutable_finished()->set_result_json(DumpJson({{"text", std::string(100, 'x')}}));
    writer->Write(event);
    ++runs_;
    return grpc::Status::OK;
  }

 private:
  std::atomic<int> runs_{0};
};

// Memory holds few results, however large they are: the executor waits for the receiver.
TEST_F(WorkerTest, ResultsThatWaitForTheirDeliveryAreBoundedByTheirBytes) {
  std::atomic<bool> is_open{false};
  const TestHttpServer receiver([&](const httplib::Request&, httplib::Response&) {
    Eventually([&] { return is_open.load(); });
  });
  QuickExecutor executor;
  const auto server = executor.Serve(dir_ / "executor");
  link_.Start();
  ASSERT_TRUE(link_.WaitAvailable(absl::Seconds(20)));
  Json document = {{"spec", {{"taskType", "echo"}}}};
  document["spec"]["output"]["destination"] = {{"type", "http"}, {"url", receiver.url()}};
  for (const char* id : {"a", "b"}) {
    ASSERT_EQ(worker_->Accept(MakeLocalEnvelope(document, id, "w", "then"), "redis", 100),
              Worker::Acceptance::kQueued);
  }
  ASSERT_TRUE(Eventually([&] { return receiver.requests().size() == 1; }));
  EXPECT_FALSE(Eventually([&] { return executor.runs() > 1; }, absl::Milliseconds(300)));
  EXPECT_EQ(worker_->running_task_id(), "");
  EXPECT_EQ(worker_->queue_depth(), 1u);
  is_open = true;
  EXPECT_TRUE(Eventually([&] {
    return tasks_.Find("a")->state() == v1::SUCCEEDED && tasks_.Find("b")->state() == v1::SUCCEEDED;
  }));
  EXPECT_EQ(executor.runs(), 2);
  link_.Stop();
}

}  // namespace
}  // namespace flowmesh::sidecar
