// Executors that hang, answer nothing or are away, each a gRPC server in this process.
#include "sidecar/dispatch/executor_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/rpc/server.h"
#include "tests/integration/eventually.h"

namespace flowmesh::sidecar {
namespace {

using ::flowmesh::testing::Eventually;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Runs a task until it is told how that ends. Its health is SERVING, whatever it does.
class ScriptedExecutor final : public v1::Executor::Service {
 public:
  grpc::Status Describe(grpc::ServerContext* context, const v1::DescribeRequest*,
                        v1::ExecutorDescription* response) override {
    Await(context, [this] { return !stuck_; });
    absl::MutexLock lock(&mutex_);
    response->set_running_task_id(running_);
    response->set_instance_id(instance_id_);
    return grpc::Status::OK;
  }
  grpc::Status Execute(grpc::ServerContext* context, const v1::ExecuteRequest* request,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override {
    {
      absl::MutexLock lock(&mutex_);
      ++executes_;
      if (!refusal_.ok()) return refusal_;
      running_ = request->task_id();
      events_.clear();
      if (!mute_) AddLocked().mutable_started();
    }
    return Follow(context, 0, writer);
  }
  grpc::Status Attach(grpc::ServerContext* context, const v1::AttachRequest* request,
                      grpc::ServerWriter<v1::TaskEvent>* writer) override {
    Await(context, [this] { return !stuck_; });
    return Follow(context, request->from_sequence(), writer);
  }
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override {
    {
      absl::MutexLock lock(&mutex_);
      cancels_.push_back(request->task_id());
    }
    if (!Await(context, [this] { return !stuck_; })) return grpc::Status::CANCELLED;
    absl::MutexLock lock(&mutex_);
    response->set_was_running(running_ == request->task_id());
    if (response->was_running()) AddLocked().mutable_failed()->set_code(v1::TaskFailed::CANCELLED);
    running_.clear();
    return grpc::Status::OK;
  }

  // Answers nothing but health checks.
  void SetStuck(bool stuck) {
    absl::MutexLock lock(&mutex_);
    stuck_ = stuck;
  }
  // Does not take tasks.
  void Refuse(grpc::Status refusal) {
    absl::MutexLock lock(&mutex_);
    refusal_ = std::move(refusal);
  }
  // Says nothing of a task, not even that it has begun.
  void SetMute() {
    absl::MutexLock lock(&mutex_);
    mute_ = true;
  }
  // What another process in its place is called.
  void SetInstance(const std::string& id) {
    absl::MutexLock lock(&mutex_);
    instance_id_ = id;
  }
  void Say(const std::string& text) {
    absl::MutexLock lock(&mutex_);
    AddLocked().mutable_log_line()->set_text(text);
  }
  void Finish() {
    absl::MutexLock lock(&mutex_);
    AddLocked().mutable_finished()->set_result_json("{}");
    running_.clear();
  }
  std::vector<std::string> cancels() const {
    absl::MutexLock lock(&mutex_);
    return cancels_;
  }
  int executes() const {
    absl::MutexLock lock(&mutex_);
    return executes_;
  }
  bool runs() const {
    absl::MutexLock lock(&mutex_);
    return !running_.empty();
  }

 private:
  v1::TaskEvent& AddLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    v1::TaskEvent& event = events_.emplace_back();
    event.set_sequence(events_.size() - 1);
    return event;
  }
  // False when the caller has gone.
  template <typename Condition>
  bool Await(grpc::ServerContext* context, Condition holds) {
    absl::MutexLock lock(&mutex_);
    while (!context->IsCancelled()) {
      if (mutex_.AwaitWithTimeout(absl::Condition(&holds), absl::Milliseconds(10))) return true;
    }
    return false;
  }
  grpc::Status Follow(grpc::ServerContext* context, uint64_t next,
                      grpc::ServerWriter<v1::TaskEvent>* writer) {
    while (Await(context, [&] { return !stuck_ && events_.size() > next; })) {
      v1::TaskEvent event;
      {
        absl::MutexLock lock(&mutex_);
        event = events_[next++];
      }
      writer->Write(event);
      if (event.has_finished() || event.has_failed()) return grpc::Status::OK;
    }
    return grpc::Status::CANCELLED;
  }

  mutable absl::Mutex mutex_;
  bool stuck_ ABSL_GUARDED_BY(mutex_) = false;
  bool mute_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status refusal_ ABSL_GUARDED_BY(mutex_);
  std::string instance_id_ ABSL_GUARDED_BY(mutex_) = "first";
  int executes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string running_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::TaskEvent> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> cancels_ ABSL_GUARDED_BY(mutex_);
};

class ExecutorLinkTest : public ::testing::Test {
 protected:
  void Serve() {
    server_ =
        RpcServer::Start({.variable = "EXECUTOR_LISTEN",
                          .listen = ParseEndpoint("unix:" + (dir_ / "e.sock").string()).value(),
                          .service_name = v1::Executor::service_full_name()},
                         executor_)
            .value();
  }
  void Start(ExecutorLinkOptions options) {
    Serve();
    link_ = std::make_unique<ExecutorLink>("e0", server_->target(), options, Clock::Real(), [] {});
    link_->Start();
    ASSERT_TRUE(link_->WaitAvailable(absl::Seconds(20)));
  }
  ~ExecutorLinkTest() override {
    executor_.SetStuck(false);
    link_->Stop();
    server_.reset();
  }

  // A task `t` on its way; its lines are in lines_.
  std::future<TaskEnd> Run() {
    auto run = std::async(std::launch::async, [this] {
      v1::ExecuteRequest request;
      request.set_task_id("t");
      return link_->Run(request, "", [this](const v1::TaskEvent& event) {
        if (event.has_log_line()) lines_.push_back(event.log_line().text());
      });
    });
    EXPECT_TRUE(Eventually([&] { return executor_.executes() > 0; }));
    return run;
  }
  static v1::TaskFailed FailureOf(TaskEnd end) {
    const auto* failed = std::get_if<v1::TaskFailed>(&end);
    return failed == nullptr ? v1::TaskFailed() : *failed;
  }
  bool WaitUntilAway() {
    return Eventually([&] { return !link_->available(); });
  }

  TempDir dir_;
  ScriptedExecutor executor_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ExecutorLink> link_;
  std::vector<std::string> lines_;
};

// An executor that is asked often and given up late.
constexpr ExecutorLinkOptions Watched() {
  ExecutorLinkOptions options;
  options.check_interval = absl::Milliseconds(50);
  options.answer_timeout = absl::Milliseconds(500);
  return options;
}

TEST_F(ExecutorLinkTest, ATaskOfWhichNothingIsSaidIsEndedAsHung) {
  Start({.silence_limit = absl::Milliseconds(300)});
  const v1::TaskFailed failed = FailureOf(Run().get());
  EXPECT_EQ(failed.code(), v1::TaskFailed::HUNG);
  EXPECT_EQ(
      failed.message(),
      "the task hung: executor e0 said nothing of it for 300ms (TASK_SILENCE_TIMEOUT_SEC); it "
      "was ended");
  EXPECT_THAT(executor_.cancels(), ElementsAre("t"));
  EXPECT_TRUE(link_->available());
}

TEST_F(ExecutorLinkTest, ATaskThatIsSlowHasNotHungAndNoEventIsLost) {
  Start({.silence_limit = absl::Seconds(1)});
  std::future<TaskEnd> run = Run();
  for (const char* line : {"a", "b", "c", "d"}) {
    EXPECT_EQ(run.wait_for(std::chrono::milliseconds(400)), std::future_status::timeout);
    executor_.Say(line);
  }
  executor_.Finish();
  EXPECT_TRUE(std::holds_alternative<v1::TaskFinished>(run.get()));
  EXPECT_THAT(lines_, ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(executor_.cancels(), ElementsAre());
}

TEST_F(ExecutorLinkTest, AnExecutorThatDoesNotAnswerIsAwayAndItsTaskGoesOnWhenItIsBack) {
  Start(Watched());
  std::future<TaskEnd> run = Run();
  executor_.SetStuck(true);
  ASSERT_TRUE(WaitUntilAway());
  executor_.Say("meanwhile");
  executor_.SetStuck(false);
  ASSERT_TRUE(link_->WaitAvailable(absl::Seconds(20)));
  executor_.Finish();
  EXPECT_TRUE(std::holds_alternative<v1::TaskFinished>(run.get()));
  EXPECT_THAT(lines_, ElementsAre("meanwhile"));
}

TEST_F(ExecutorLinkTest, AnExecutorThatStaysSilentLosesItsTaskAndIsToldWhenItIsBack) {
  ExecutorLinkOptions options = Watched();
  options.lost_limit = absl::Milliseconds(200);
  Start(options);
  std::future<TaskEnd> run = Run();
  executor_.SetStuck(true);
  const v1::TaskFailed failed = FailureOf(run.get());
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.message(), "executor e0 was lost while the task ran: it does not answer");
  executor_.SetStuck(false);
  ASSERT_TRUE(link_->WaitAvailable(absl::Seconds(20)));
  EXPECT_THAT(executor_.cancels(), ElementsAre("t"));
  EXPECT_FALSE(executor_.runs());
}

TEST_F(ExecutorLinkTest, ACancelledTaskDoesNotWaitForAnExecutorThatIsAway) {
  Start(Watched());
  std::future<TaskEnd> run = Run();
  server_->Shutdown();
  ASSERT_TRUE(WaitUntilAway());
  EXPECT_FALSE(link_->Cancel("t", absl::ZeroDuration(), "no longer wanted").ok());
  const v1::TaskFailed failed = FailureOf(run.get());
  EXPECT_EQ(failed.code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(failed.message(), "no longer wanted");
}

// As that of a Python executor whose handler throws.
TEST_F(ExecutorLinkTest, AnAnswerThatSaysNoFailsTheTaskAtOnce) {
  Start({});
  executor_.Refuse({grpc::StatusCode::UNKNOWN, "Exception calling application: no such model"});
  std::future<TaskEnd> run = Run();
  EXPECT_EQ(run.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  link_->Stop();
  const v1::TaskFailed failed = FailureOf(run.get());
  EXPECT_EQ(failed.code(), v1::TaskFailed::INTERNAL);
  EXPECT_EQ(failed.message(), "executor e0: UNKNOWN: Exception calling application: no such model");
  EXPECT_EQ(executor_.executes(), 1);
}

TEST_F(ExecutorLinkTest, ADrainingExecutorIsAskedAgain) {
  Start({});
  executor_.Refuse({grpc::StatusCode::FAILED_PRECONDITION, "the executor is stopping"});
  std::future<TaskEnd> run = Run();
  executor_.SetInstance("second");
  executor_.Refuse(grpc::Status::OK);
  ASSERT_TRUE(Eventually([&] { return executor_.runs(); }));
  executor_.Finish();
  EXPECT_TRUE(std::holds_alternative<v1::TaskFinished>(run.get()));
}

TEST_F(ExecutorLinkTest, ATaskThatEndsItsExecutorBeforeItsFirstEventIsNotSentToTheNext) {
  Start(Watched());
  executor_.SetMute();
  std::future<TaskEnd> run = Run();
  server_->Shutdown();
  ASSERT_TRUE(WaitUntilAway());
  server_.reset();
  executor_.SetInstance("second");
  Serve();
  EXPECT_EQ(run.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  link_->Stop();
  const v1::TaskFailed failed = FailureOf(run.get());
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.message(), "executor e0 was lost while the task ran: it restarted");
  EXPECT_EQ(executor_.executes(), 1);
}

// As that of a proxy before an executor that is gone for good.
TEST_F(ExecutorLinkTest, AnExecutorThatIsThereAndNeverTakesTheTaskIsNotAskedForEver) {
  for (const grpc::StatusCode code :
       {grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::FAILED_PRECONDITION}) {
    ExecutorLinkOptions options;
    options.lost_limit = absl::Milliseconds(500);
    Start(options);
    executor_.Refuse({code, "not now"});
    const int before = executor_.executes();
    std::future<TaskEnd> run = Run();
    EXPECT_EQ(run.wait_for(std::chrono::seconds(10)), std::future_status::ready);
    link_->Stop();
    server_.reset();
    const v1::TaskFailed failed = FailureOf(run.get());
    EXPECT_EQ(failed.code(), v1::TaskFailed::TASK_ERROR);
    EXPECT_THAT(failed.message(), HasSubstr("not now"));
    EXPECT_LT(executor_.executes() - before, 10);  // with pauses that grow
  }
}

TEST_F(ExecutorLinkTest, ACancelledTaskIsNotSentAgain) {
  Start({});
  executor_.Refuse({grpc::StatusCode::UNAVAILABLE, "not now"});
  std::future<TaskEnd> run = Run();
  EXPECT_FALSE(link_->Cancel("t", absl::ZeroDuration(), "no longer wanted").value());
  EXPECT_EQ(run.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  link_->Stop();
  EXPECT_EQ(FailureOf(run.get()).code(), v1::TaskFailed::CANCELLED);
}

TEST_F(ExecutorLinkTest, ACancelThatNobodyAnswersCanBeAbandoned) {
  Start({});
  std::future<TaskEnd> run = Run();
  executor_.SetStuck(true);
  auto cancel = std::async(std::launch::async,
                           [&] { return link_->Cancel("t", absl::Hours(1), "no longer wanted"); });
  ASSERT_TRUE(Eventually([&] { return !executor_.cancels().empty(); }));
  link_->AbandonCancels();
  EXPECT_FALSE(cancel.get().ok());
  EXPECT_EQ(FailureOf(run.get()).code(), v1::TaskFailed::CANCELLED);
}

}  // namespace
}  // namespace flowmesh::sidecar
