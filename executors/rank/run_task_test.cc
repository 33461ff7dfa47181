#include "executors/rank/run_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/strings.h"

namespace flowmesh::rank {
namespace {

using ::testing::ElementsAre;

class FunctionRunner : public tasks::TaskRunner {
 public:
  using Function = std::function<absl::StatusOr<tasks::TaskOutcome>(const tasks::TaskContext&)>;
  explicit FunctionRunner(Function function) : function_(std::move(function)) {}
  absl::StatusOr<tasks::TaskOutcome> Run(const tasks::TaskContext& context) override {
    return function_(context);
  }

 private:
  Function function_;
};

class RunTaskTest : public ::testing::Test {
 protected:
  RunTaskTest() {
    request_.set_task_id("T1");
    request_.set_document_json(R"({"task_id": "T1", "spec": {"taskType": " vLLM "}})");
    request_.set_task_dir("/results/T1");
    (*request_.mutable_child_task_dirs())["C1"] = "/results/C1";
    request_.set_results_dir("/results");
    request_.set_orchestrator_base_url("http://host");
    request_.set_orchestrator_token("secret");
  }

  v1::FromRank Run(FunctionRunner::Function function) {
    TaskRunners runners;
    runners["inference"] = std::make_unique<FunctionRunner>(std::move(function));
    return RunTask(request_, runners,
                   {.send = [this](v1::FromRank message) { sent_.push_back(std::move(message)); },
                    .is_stopped = [this] { return stopped_; },
                    .log_level = LogLevel::kInfo},
                   clock_);
  }

  v1::TaskFailed FailureOf(FunctionRunner::Function function) {
    const v1::FromRank answer = Run(std::move(function));
    EXPECT_TRUE(answer.has_failed());
    return answer.failed();
  }

  v1::ExecuteRequest request_;
  std::vector<v1::FromRank> sent_;
  bool stopped_ = false;
  FakeClock clock_;
};

TEST_F(RunTaskTest, TheRunnerSeesTheWholeRequest) {
  const v1::FromRank answer = Run([](const tasks::TaskContext& context) {
    EXPECT_EQ(context.task_id, "T1");
    EXPECT_EQ(context.document["spec"]["taskType"], " vLLM ");
    EXPECT_EQ(context.task_dir, "/results/T1");
    EXPECT_EQ(context.child_dirs.at("C1"), "/results/C1");
    EXPECT_EQ(context.results_dir, "/results");
    EXPECT_EQ(context.orchestrator_base_url, "http://host");
    EXPECT_EQ(context.orchestrator_token, "secret");
    EXPECT_FALSE(context.is_stopped());
    tasks::TaskOutcome outcome;
    outcome.result = {{"ok", true}};
    outcome.outputs.push_back(
        {tasks::OutputFile::Kind::kFinalLora, "T1", "/results/T1/final_lora"});
    return outcome;
  });
  ASSERT_TRUE(answer.has_finished());
  EXPECT_EQ(answer.finished().result_json(), R"({"ok":true})");
  ASSERT_EQ(answer.finished().outputs_size(), 1);
  EXPECT_EQ(answer.finished().outputs(0).kind(), v1::OutputFile::FINAL_LORA);
  EXPECT_EQ(answer.finished().outputs(0).path(), "/results/T1/final_lora");
}

TEST_F(RunTaskTest, StatusCodesBecomeFailureCodes) {
  const auto code = [&](const absl::Status& status) {
    return FailureOf([&](const tasks::TaskContext&) { return status; }).code();
  };
  EXPECT_EQ(code(absl::InvalidArgumentError("x")), v1::TaskFailed::INVALID_SPEC);
  EXPECT_EQ(code(absl::CancelledError("x")), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(code(absl::NotFoundError("x")), v1::TaskFailed::TASK_ERROR);
  EXPECT_EQ(code(absl::ResourceExhaustedError("x")), v1::TaskFailed::TASK_ERROR);
  EXPECT_EQ(code(absl::InternalError("x")), v1::TaskFailed::INTERNAL);
  EXPECT_EQ(code(absl::AbortedError("x")), v1::TaskFailed::PEER_LOST);
}

TEST_F(RunTaskTest, ExceptionsBecomeReadableFailures) {
  v1::TaskFailed failed =
      FailureOf([](const tasks::TaskContext&) -> absl::StatusOr<tasks::TaskOutcome> {
        throw std::runtime_error(
            "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)\nException raised from meta "
            "at linear.cpp:180 (most recent call first):\nframe #0: c10::Error");
      });
  EXPECT_EQ(failed.code(), v1::TaskFailed::TASK_ERROR);
  EXPECT_EQ(failed.message(), "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)");

  failed = FailureOf([](const tasks::TaskContext&) -> absl::StatusOr<tasks::TaskOutcome> {
    throw std::bad_alloc();
  });
  EXPECT_EQ(failed.message(), "out of memory: the system gave no more");

  failed = FailureOf([](const tasks::TaskContext&) -> absl::StatusOr<tasks::TaskOutcome> {
    throw std::runtime_error(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: "
        "can't allocate memory: you tried to allocate 9 bytes.");
  });
  EXPECT_EQ(failed.message().rfind("out of memory: [enforce fail", 0), 0u);

  failed =
      FailureOf([](const tasks::TaskContext&) -> absl::StatusOr<tasks::TaskOutcome> { throw 7; });
  EXPECT_EQ(failed.code(), v1::TaskFailed::INTERNAL);
}

TEST_F(RunTaskTest, MessagesAreBoundedAndValidUtf8) {
  const v1::TaskFailed failed = FailureOf([](const tasks::TaskContext&) {
    return absl::NotFoundError("\xff" + std::string(100000, 'x'));
  });
  EXPECT_LE(failed.message().size(), 8192u);
  EXPECT_TRUE(IsValidUtf8(failed.message()));
}

TEST_F(RunTaskTest, LogLinesBelowTheLevelStayHere) {
  Run([](const tasks::TaskContext& context) {
    context.on_log(LogLevel::kDebug, "a");
    context.on_log(LogLevel::kInfo, "b\xff");
    context.on_log(LogLevel::kWarning, "c");
    return tasks::TaskOutcome();
  });
  std::vector<std::string> lines;
  for (const v1::FromRank& message : sent_) {
    lines.push_back(message.log_line().level() + " " + message.log_line().text());
  }
  EXPECT_THAT(lines, ElementsAre("INFO b\xEF\xBF\xBD", "WARNING c"));
}

TEST_F(RunTaskTest, ProgressIsThinnedOut) {
  Run([this](const tasks::TaskContext& context) {
    for (uint64_t done = 0; done <= 1000; ++done) {
      context.on_progress({.stage = "generating", .done = done, .total = 1000, .unit = "items"});
      clock_.Advance(absl::Milliseconds(1));
    }
    context.on_progress({.stage = "writing", .done = 1});
    return tasks::TaskOutcome();
  });
  std::vector<uint64_t> done;
  for (const v1::FromRank& message : sent_) done.push_back(message.progress().done());
  ASSERT_EQ(done.size(), 22u);  // 0, 50, ..., 1000, and the next stage
  EXPECT_EQ(done.front(), 0u);
  EXPECT_EQ(done[1], 50u);
  EXPECT_EQ(done[20], 1000u);
  EXPECT_EQ(sent_.back().progress().stage(), "writing");
}

TEST_F(RunTaskTest, ProgressWithoutATotalIsThinnedOut) {
  Run([this](const tasks::TaskContext& context) {
    for (int i = 0; i < 100; ++i) {
      context.on_progress({.stage = "embedding passages"});
      clock_.Advance(absl::Milliseconds(1));
    }
    return tasks::TaskOutcome();
  });
  EXPECT_EQ(sent_.size(), 2u);
}

TEST_F(RunTaskTest, AStageIsValidUtf8) {
  Run([](const tasks::TaskContext& context) {
    context.on_progress({.stage = "b\xff", .done = 1});
    return tasks::TaskOutcome();
  });
  ASSERT_EQ(sent_.size(), 1u);
  EXPECT_EQ(sent_[0].progress().stage(), "b\xEF\xBF\xBD");
}

TEST_F(RunTaskTest, WhatCannotRunIsAnAnswerToo) {
  request_.set_document_json("{");
  EXPECT_EQ(FailureOf([](const tasks::TaskContext&) { return tasks::TaskOutcome(); }).code(),
            v1::TaskFailed::INVALID_SPEC);
  request_.set_document_json(R"({"spec": {"taskType": "ppo"}})");
  EXPECT_EQ(FailureOf([](const tasks::TaskContext&) { return tasks::TaskOutcome(); }).code(),
            v1::TaskFailed::INTERNAL);
}

}  // namespace
}  // namespace flowmesh::rank
