#include "executors/server/executor_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A backend whose tasks a test writes as functions.
class FakeBackend : public TaskBackend {
 public:
  TaskEnd Run(const v1::ExecuteRequest& task, const Json& document, CancelSignal& cancel,
              const TaskSink& sink) override {
    ran.push_back(task.task_id());
    EXPECT_NE(document["spec"]["taskType"], "echo");
    if (body) return body(cancel, sink);
    v1::TaskFinished finished;
    finished.set_result_json("{}");
    return finished;
  }
  void Release() override { ++releases; }
  uint64_t ResidentBytes() const override { return 0; }

  std::atomic<int> releases{0};
  std::vector<std::string> ran;
  std::function<TaskEnd(CancelSignal&, const TaskSink&)> body;
};

class ExecutorCoreTest : public ::testing::Test {
 protected:
  explicit ExecutorCoreTest(ExecutorCoreOptions options = {})
      : core_(WithCount(std::move(options)), types_, backend_, clock_) {
    std::filesystem::create_directory(dir_ / "logs");
  }

  ExecutorCoreOptions WithCount(ExecutorCoreOptions options) {
    options.on_end = [this](const std::string& type, const std::string& outcome, absl::Duration) {
      counted_.push_back(absl::StrCat(type, "/", outcome));
    };
    return options;
  }

  v1::ExecuteRequest Request(const std::string& id, const std::string& type,
                             const std::string& attempt = "") {
    v1::ExecuteRequest request;
    request.set_task_id(id);
    request.set_attempt(attempt);
    request.set_task_dir(dir_.path().string());
    request.set_document_json(
        absl::StrCat(R"({"task_id": ")", id, R"(", "spec": {"taskType": ")", type, R"("}})"));
    return request;
  }

  std::shared_ptr<EventLog> Accept(const v1::ExecuteRequest& request) {
    const auto log = core_.Execute(request);
    EXPECT_TRUE(log.ok()) << log.status();
    return log.ok() ? *log : nullptr;
  }

  static v1::TaskEvent Last(const EventLog& log) {
    return *log.Read(0, absl::ZeroDuration()).events.back();
  }

  const TempDir dir_;
  FakeClock clock_;
  const TaskTypes types_{{"inference", "sft", "dpo"}, ""};
  FakeBackend backend_;
  std::vector<std::string> counted_;
  ExecutorCore core_;
};

TEST_F(ExecutorCoreTest, AFailedTrainingHasItsRecord) {
  const auto record_of = [this](const std::string& id, const std::string& type,
                                const std::string& more, const std::string& own) {
    backend_.body = [&](CancelSignal&, const TaskSink&) {
      clock_.Advance(absl::Seconds(3));
      v1::TaskFailed failed;
      failed.set_code(v1::TaskFailed::RANK_DIED);
      failed.set_message("rank 1 died");
      failed.set_result_json(own);
      return failed;
    };
    v1::ExecuteRequest request = Request(id, type);
    request.set_document_json(absl::StrCat(R"({"spec": {"taskType": ")", type, R"(")", more, "}}"));
    const auto log = Accept(request);
    EXPECT_TRUE(core_.RunNext());
    EXPECT_EQ(Last(*log).failed().message(), "rank 1 died");
    return Last(*log).failed().result_json();
  };
  const std::string dir = dir_.path().string();
  Json expected = {{"task_id", "T1"},
                   {"training_successful", false},
                   {"training_time_seconds", 3.0},
                   {"error_message", "rank 1 died"},
                   {"model_name", "a/b"},
                   {"dataset_size", 0},
                   {"output_dir", dir},
                   {"checkpoints_dir", dir + "/checkpoints"},
                   {"resume_from_path", "/a/checkpoint"}};
  EXPECT_EQ(ParseJson(record_of("T1", "SFT ", R"(, "model": {"source": {"identifier": " a/b"}},
                                "training": {"resume_from_path": "/a/checkpoint"})",
                                ""))
                .value(),
            expected);
  // What the spec has wrong does no harm.
  expected["task_id"] = "T2";
  expected["model_name"] = "microsoft/DialoGPT-small";
  expected["resume_from_path"] = nullptr;
  EXPECT_EQ(ParseJson(record_of("T2", "dpo", R"(, "model": 7, "training": [1])", "")).value(),
            expected);
  // That of the ranks knows more; other tasks have none.
  EXPECT_EQ(record_of("T3", "sft", "", R"({"dataset_size":4})"), R"({"dataset_size":4})");
  EXPECT_EQ(record_of("T4", "inference", "", ""), "");
}

TEST_F(ExecutorCoreTest, EchoIsOverWhenItIsAccepted) {
  const auto log = Accept(Request("T1", "echo"));
  ASSERT_TRUE(log->complete());
  const EventLog::Batch batch = log->Read(0, absl::ZeroDuration());
  ASSERT_EQ(batch.events.size(), 3u);
  EXPECT_TRUE(batch.events[0]->has_started());
  EXPECT_TRUE(batch.events[1]->has_log_line());
  EXPECT_EQ(batch.events[2]->finished().result_json(), R"({"ok":true,"echo":{"taskType":"echo"}})");
  EXPECT_THAT(ReadFile(dir_ / "logs/task.log").value(), HasSubstr(" | INFO | echo: "));
  EXPECT_EQ(core_.running_task_id(), "");
  EXPECT_THAT(counted_, ElementsAre("echo/succeeded"));
}

TEST_F(ExecutorCoreTest, EchoKeepsTheOrderOfKeysAndUnknownOnes) {
  v1::ExecuteRequest request = Request("T1", "echo");
  request.set_document_json(
      R"({"spec": {"z": 1, "taskType": "echo", "a": {"é": [null, 1.5, "x"]}}, "other": 1})");
  EXPECT_EQ(Last(*Accept(request)).finished().result_json(),
            R"({"ok":true,"echo":{"z":1,"taskType":"echo","a":{"é":[null,1.5,"x"]}}})");
}

TEST_F(ExecutorCoreTest, OtherTasksRunInTheRunnersThread) {
  backend_.body = [&](CancelSignal&, const TaskSink& sink) -> TaskEnd {
    EXPECT_EQ(core_.running_task_id(), "T1");
    v1::TaskProgress progress;
    progress.set_done(3);
    sink.progress(progress);
    v1::TaskFinished finished;
    finished.set_result_json(R"({"ok":true})");
    return finished;
  };
  const auto log = Accept(Request("T1", "inference"));
  EXPECT_FALSE(log->complete());
  EXPECT_TRUE(core_.RunNext());
  const EventLog::Batch batch = log->Read(0, absl::ZeroDuration());
  ASSERT_EQ(batch.events.size(), 3u);
  EXPECT_EQ(batch.events[1]->progress().done(), 3u);
  EXPECT_EQ(batch.events[2]->finished().result_json(), R"({"ok":true})");
}

TEST_F(ExecutorCoreTest, AWrongTypeFailsTheTaskNotTheCall) {
  const auto log = Accept(Request("T1", "embedding"));
  EXPECT_EQ(Last(*log).failed().code(), v1::TaskFailed::INVALID_SPEC);
  EXPECT_THAT(Last(*log).failed().message(), HasSubstr("unknown type 'embedding'"));
  EXPECT_THAT(counted_, ElementsAre("unknown/invalid_spec"));
  EXPECT_TRUE(Accept(Request("T2", "echo"))->complete());
}

TEST_F(ExecutorCoreTest, WhatIsNoTaskIsAnInvalidArgument) {
  const auto error = [&](const std::function<void(v1::ExecuteRequest&)>& change) {
    v1::ExecuteRequest request = Request("T1", "echo");
    change(request);
    const auto log = core_.Execute(request);
    EXPECT_TRUE(absl::IsInvalidArgument(log.status())) << log.status();
    return Message(log.status());
  };
  EXPECT_EQ(error([](auto& r) { r.clear_task_id(); }), "task_id: required, got nothing");
  EXPECT_EQ(error([](auto& r) { r.set_task_dir("results/T1"); }),
            R"(task_dir: expected an absolute path, got "results/T1")");
  EXPECT_EQ(error([](auto& r) { r.set_document_json("[1]"); }),
            "document_json: expected a map, got a list");
  EXPECT_THAT(error([](auto& r) { r.set_document_json("{\"a\": }"); }),
              HasSubstr("document_json: "));
  EXPECT_THAT(error([](auto& r) { r.set_document_json(std::string(100000, '[')); }),
              HasSubstr("document_json: "));
  EXPECT_TRUE(Accept(Request("T1", "echo"))->complete());  // nothing was left behind
}

TEST_F(ExecutorCoreTest, OneTaskAtATime) {
  Accept(Request("T1", "inference"));
  for (const char* type : {"inference", "echo"}) {
    const auto second = core_.Execute(Request("T2", type));
    EXPECT_TRUE(absl::IsResourceExhausted(second.status()));
    EXPECT_EQ(second.status().message(), "task T1 is running");
  }
  EXPECT_TRUE(core_.RunNext());
  EXPECT_TRUE(Accept(Request("T2", "echo"))->complete());
}

TEST_F(ExecutorCoreTest, AKnownAttemptIsNotRunAgain) {
  const auto first = Accept(Request("T1", "inference", "a"));
  EXPECT_EQ(Accept(Request("T1", "inference", "a")), first);  // while it waits
  core_.RunNext();
  EXPECT_EQ(Accept(Request("T1", "inference", "a")), first);  // when it is over
  EXPECT_NE(Accept(Request("T1", "inference", "b")), first);
  core_.RunNext();
  EXPECT_THAT(backend_.ran, ElementsAre("T1", "T1"));
}

TEST_F(ExecutorCoreTest, AttachFindsTasksByAttempt) {
  const auto log = Accept(Request("T1", "echo", "a"));
  EXPECT_EQ(core_.Attach("T1", "a").value(), log);
  EXPECT_TRUE(absl::IsNotFound(core_.Attach("T1", "b").status()));
  EXPECT_TRUE(absl::IsNotFound(core_.Attach("T2", "a").status()));
}

TEST_F(ExecutorCoreTest, CancelEndsTheRunningTask) {
  std::thread canceller;
  backend_.body = [&](CancelSignal& cancel, const TaskSink&) -> TaskEnd {
    canceller =
        std::thread([&] { EXPECT_TRUE(core_.Cancel("T1", absl::Seconds(7), "by a test")); });
    absl::Duration grace;
    EXPECT_TRUE(cancel.WaitFor(Clock::Real(), absl::Seconds(30)));
    cancel.SetCallback([&](absl::Duration given) { grace = given; });
    cancel.SetCallback(nullptr);
    EXPECT_EQ(grace, absl::Seconds(7));
    return v1::TaskFinished();  // it finished in the same moment: it still counts as cancelled
  };
  const auto log = Accept(Request("T1", "inference"));
  EXPECT_TRUE(core_.RunNext());
  canceller.join();
  EXPECT_EQ(Last(*log).failed().code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(Last(*log).failed().message(), "by a test");
  EXPECT_TRUE(Accept(Request("T2", "echo"))->complete());
}

TEST_F(ExecutorCoreTest, CancelOfAnythingElseDoesNothing) {
  EXPECT_FALSE(core_.Cancel("T1", absl::ZeroDuration(), ""));
  Accept(Request("T1", "echo"));
  EXPECT_FALSE(core_.Cancel("T1", absl::ZeroDuration(), ""));
  Accept(Request("T2", "inference"));
  EXPECT_FALSE(core_.Cancel("T1", absl::ZeroDuration(), ""));
  EXPECT_TRUE(core_.RunNext());
  EXPECT_THAT(backend_.ran, ElementsAre("T2"));
}

TEST_F(ExecutorCoreTest, ATaskCancelledBeforeItStartedNeverRuns) {
  const auto log = Accept(Request("T1", "inference"));
  core_.Stop();  // cancels it
  EXPECT_TRUE(core_.RunNext());
  EXPECT_EQ(Last(*log).failed().code(), v1::TaskFailed::CANCELLED);
  EXPECT_TRUE(backend_.ran.empty());
}

TEST_F(ExecutorCoreTest, AfterStopNothingIsAcceptedButKnownTasksAnswer) {
  const auto log = Accept(Request("T1", "echo"));
  core_.Stop();
  EXPECT_FALSE(core_.RunNext());
  EXPECT_TRUE(absl::IsFailedPrecondition(core_.Execute(Request("T2", "echo")).status()));
  EXPECT_EQ(Accept(Request("T1", "echo")), log);
}

class IdleTest : public ExecutorCoreTest {
 protected:
  IdleTest() : ExecutorCoreTest({.idle_release = absl::Minutes(10)}) {}
};

TEST_F(IdleTest, WhatIsWarmIsReleasedOnceAndTheNextTaskRuns) {
  std::thread runner([this] {
    while (core_.RunNext()) {
    }
  });
  const auto released = [this](int times) {
    while (backend_.releases < times) {
      clock_.Advance(absl::Minutes(1));
      std::this_thread::yield();
    }
  };
  released(1);
  clock_.Advance(absl::Hours(5));
  Accept(Request("T1", "inference"))->WaitComplete(absl::InfiniteDuration());
  EXPECT_EQ(backend_.releases, 1) << "once for each time without a task";
  released(2);
  core_.Stop();
  runner.join();
  EXPECT_THAT(backend_.ran, ElementsAre("T1"));
}

class HangTest : public ExecutorCoreTest {
 protected:
  HangTest() : ExecutorCoreTest({.progress_timeout = absl::Seconds(60)}) {}
};

TEST_F(HangTest, ATaskThatSaysNothingForTooLongIsEndedAndReportedAsHung) {
  backend_.body = [&](CancelSignal& cancel, const TaskSink& sink) -> TaskEnd {
    for (int step = 0; step < 3; ++step) {
      clock_.Advance(absl::Seconds(59));
      if (step == 1) {
        sink.log_line({});
      } else {
        sink.progress({});
      }
      EXPECT_FALSE(cancel.requested());
    }
    clock_.Advance(absl::Seconds(60));
    EXPECT_TRUE(cancel.WaitFor(Clock::Real(), absl::Seconds(30)));
    return v1::TaskFailed();
  };
  const auto log = Accept(Request("T1", "inference"));
  EXPECT_TRUE(core_.RunNext());
  EXPECT_EQ(Last(*log).failed().code(), v1::TaskFailed::HUNG);
  EXPECT_THAT(Last(*log).failed().message(), HasSubstr("no progress within 1m"));
  EXPECT_THAT(counted_, ElementsAre("inference/hung"));
}

class SmallMemoryTest : public ExecutorCoreTest {
 protected:
  SmallMemoryTest() : ExecutorCoreTest(SmallOptions()) {}

  static ExecutorCoreOptions SmallOptions() {
    ExecutorCoreOptions options;
    options.finished_tasks = 3;
    options.finished_bytes = 2000;
    return options;
  }
};

TEST_F(SmallMemoryTest, OldTasksAreForgotten) {
  for (int i = 0; i < 5; ++i) Accept(Request(absl::StrCat("T", i), "echo"));
  EXPECT_TRUE(absl::IsNotFound(core_.Attach("T1", "").status()));
  EXPECT_TRUE(core_.Attach("T2", "").ok());
  EXPECT_TRUE(core_.Attach("T4", "").ok());
}

TEST_F(SmallMemoryTest, LargeTasksAreForgottenSoonerButNeverTheNewest) {
  v1::ExecuteRequest large = Request("L1", "echo");
  large.set_document_json(
      absl::StrCat(R"({"spec": {"taskType": "echo", "x": ")", std::string(5000, 'x'), R"("}})"));
  Accept(Request("T1", "echo"));
  Accept(large);
  EXPECT_TRUE(absl::IsNotFound(core_.Attach("T1", "").status()));
  EXPECT_TRUE(core_.Attach("L1", "").ok());
}

}  // namespace
}  // namespace flowmesh::executor
