#include "executors/launch/rank_host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/files.h"

namespace flowmesh::executor {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ScriptedRank() {
  return std::string(std::getenv("FLOWMESH_BIN_DIR")) + "/../tests/scripted_rank";
}

RankHostOptions Options(std::map<std::string, std::string> env = {}) {
  RankHostOptions options;
  options.command = {ScriptedRank()};
  options.env = std::move(env);
  options.first_delay = absl::Seconds(10);
  options.most_delay = absl::Seconds(40);
  return options;
}

class RankHostTest : public ::testing::Test {
 protected:
  RankHostTest() { std::filesystem::create_directory(dir_ / "logs"); }

  TaskEnd Run(RankHost& host, const std::string& spec) { return Run(host, spec, cancel_); }

  TaskEnd Run(RankHost& host, const std::string& spec, CancelSignal& cancel) {
    v1::ExecuteRequest task;
    task.set_task_id("T1");
    task.set_task_dir(dir_.path().string());
    task.set_document_json(absl::StrCat(R"({"task_id": "T1", "spec": )", spec, "}"));
    const TaskSink sink{.progress = [](v1::TaskProgress) {},
                        .log_line =
                            [this](v1::TaskLogLine line) {
                              said_.push_back(line.text());
                              if (on_line_) on_line_();
                            }};
    return host.Run(task, ParseJson(task.document_json()).value(), cancel, sink);
  }

  Json Result(const TaskEnd& end) {
    const auto* finished = std::get_if<v1::TaskFinished>(&end);
    EXPECT_NE(finished, nullptr);
    return finished == nullptr ? Json() : ParseJson(finished->result_json()).value();
  }

  v1::TaskFailed Failed(const TaskEnd& end) {
    const auto* failed = std::get_if<v1::TaskFailed>(&end);
    EXPECT_NE(failed, nullptr);
    return failed == nullptr ? v1::TaskFailed() : *failed;
  }

  const TempDir dir_;
  FakeClock clock_;
  CancelSignal cancel_;
  std::vector<std::string> said_;
  std::function<void()> on_line_;
};

TEST_F(RankHostTest, ARankStaysWarmForTheSameModel) {
  RankHost host(Options(), clock_);
  const Json first = Result(Run(host, R"({"model": {"source": {"identifier": "a"}}})"));
  const Json second =
      Result(Run(host, R"({"model": {"source": {"identifier": "a"}}, "inference": {}})"));
  EXPECT_EQ(first["pid"], second["pid"]);
  EXPECT_EQ(host.rank_starts(), 1u);
  EXPECT_GT(host.ResidentBytes(), 0u);
  host.Release();
  EXPECT_EQ(host.ResidentBytes(), 0u);
}

TEST_F(RankHostTest, AnotherModelReplacesTheRank) {
  RankHost host(Options(), clock_);
  const pid_t first = Result(Run(host, R"({"model": {"source": {"identifier": "a"}}})"))["pid"];
  const pid_t second = Result(Run(host, R"({"model": {"source": {"identifier": "b"}}})"))["pid"];
  EXPECT_NE(first, second);
  EXPECT_NE(::kill(first, 0), 0);
  EXPECT_EQ(host.ranks(), 1u);
  host.Release();
  EXPECT_EQ(host.ranks(), 0u);
  EXPECT_EQ(host.rank_starts(), 2u);
  EXPECT_EQ(host.rank_deaths(), 0u);
}

TEST_F(RankHostTest, ARankThatDiedWhileIdleIsReplaced) {
  RankHost host(Options(), clock_);
  const pid_t first = Result(Run(host, "{}"))["pid"];
  ::kill(first, SIGKILL);
  while (::kill(first, 0) == 0) std::this_thread::yield();  // until it is reaped
  const Json second = Result(Run(host, "{}"));
  EXPECT_NE(second["pid"], first);
  EXPECT_EQ(host.rank_deaths(), 1u);
}

TEST_F(RankHostTest, ADeathFailsTheTaskWithItsCauseAndWritesTheErrorFile) {
  RankHost host(Options(), clock_);
  const v1::TaskFailed failed =
      Failed(Run(host, R"({"script": ["print step 7", "print the end", "crash 6"]})"));
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.message(), "rank 0 died: signal 6 (Aborted); its last line: the end");
  EXPECT_EQ(failed.rank_failure().signal(), SIGABRT);
  EXPECT_THAT(failed.rank_failure().last_lines(), ElementsAre("step 7", "the end"));

  const Json error = ParseJson(ReadFile(dir_ / "logs/error.json").value()).value();
  EXPECT_EQ(error["task_id"], "T1");
  EXPECT_EQ(error["rank"], 0);
  EXPECT_EQ(error["signal"], SIGABRT);
  EXPECT_EQ(error["message"], failed.message());
  EXPECT_THAT(error["last_lines"], Contains("the end"));
  EXPECT_EQ(error["time"], "2025-11-03T09:00:00.000000+00:00");

  EXPECT_EQ(Result(Run(host, "{}"))["ok"], true);  // a fresh rank, without delay
  EXPECT_EQ(host.rank_starts(), 2u);
}

TEST_F(RankHostTest, OnlyTheLastLinesAreReported) {
  RankHost host(Options(), clock_);
  const v1::TaskFailed failed =
      Failed(Run(host, R"({"script": ["flood 10000", "print end", "exit 1"]})"));
  EXPECT_EQ(failed.rank_failure().last_lines_size(), 20);
  EXPECT_EQ(failed.rank_failure().last_lines(19), "end");
}

TEST_F(RankHostTest, ACancelledTaskLeavesNoProcess) {
  RankHost host(Options(), clock_);
  absl::Notification running;
  on_line_ = [&] { running.Notify(); };
  std::thread canceller([&] {
    running.WaitForNotification();
    cancel_.Request(absl::Milliseconds(100), "cancelled by a test");
  });
  const v1::TaskFailed failed =
      Failed(Run(host, R"({"script": ["ignore_term", "log running", "hang"]})"));
  canceller.join();
  EXPECT_EQ(failed.code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(failed.message(), "cancelled by a test");
  EXPECT_EQ(host.ResidentBytes(), 0u);
  EXPECT_EQ(host.rank_deaths(), 0u);

  CancelSignal fresh;
  on_line_ = nullptr;
  EXPECT_EQ(Result(Run(host, "{}", fresh))["ok"], true);
}

TEST_F(RankHostTest, ATaskCancelledBeforeItsRankStartsDoesNotStartOne) {
  RankHost host(Options(), clock_);
  cancel_.Request(absl::ZeroDuration(), "too late");
  EXPECT_EQ(Failed(Run(host, "{}")).message(), "too late");
  EXPECT_EQ(host.rank_starts(), 0u);
}

TEST_F(RankHostTest, RanksThatDieAtStartAreTriedAgainWithBackOff) {
  RankHost host(Options({{"SCRIPTED_RANK_START", "print no such library,exit 127"}}), clock_);
  const v1::TaskFailed failed = Failed(Run(host, "{}"));
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.message(), "rank 0 died: exit code 127; its last line: no such library");

  // The second try waits for the clock; the cancellation shows that it has not started.
  std::thread canceller([&] { cancel_.Request(absl::ZeroDuration(), "waited"); });
  EXPECT_EQ(Failed(Run(host, "{}")).message(), "waited");
  canceller.join();
  EXPECT_EQ(host.rank_starts(), 1u);

  clock_.Advance(absl::Seconds(10));
  CancelSignal fresh;
  EXPECT_THAT(Failed(Run(host, "{}", fresh)).message(), HasSubstr("no such library"));
  EXPECT_EQ(host.rank_starts(), 2u);
}

TEST_F(RankHostTest, AProgramThatDoesNotExistFailsTheTask) {
  RankHostOptions options = Options();
  options.command = {"/nonexistent/rank"};
  RankHost host(options, clock_);
  EXPECT_THAT(Failed(Run(host, "{}")).message(), HasSubstr("cannot start /nonexistent/rank"));
}

TEST_F(RankHostTest, EnforceCpuHidesTheGpus) {
  RankHostOptions options = Options();
  options.has_gpus = true;
  options.visible_devices = "GPU-1";
  RankHost host(options, clock_);
  EXPECT_EQ(Result(Run(host, "{}"))["CUDA_VISIBLE_DEVICES"], "GPU-1");
  EXPECT_EQ(Result(Run(host, R"({"enforce_cpu": "yes"})"))["CUDA_VISIBLE_DEVICES"], "");
}

// A training task on `ranks` CPU ranks, with more members of its spec.
std::string Training(int ranks, const std::string& training, const std::string& more = "") {
  return absl::StrCat(R"({"taskType": "sft", "training": {"nproc_per_node": )", ranks, training,
                      "}", more, "}");
}

TEST_F(RankHostTest, ATrainingTaskHasAGroupOfItsOwn) {
  RankHostOptions options = Options();
  options.threads = 6;
  RankHost host(options, clock_);
  const pid_t warm = Result(Run(host, "{}"))["pid"];
  const std::string spec = Training(3, "", R"(, "scripts": {"2": ["log hello", "finish"]})");
  const Json result = Result(Run(host, spec));
  EXPECT_NE(::kill(warm, 0), 0);
  EXPECT_EQ(result["RANK"], "0");
  EXPECT_EQ(result["WORLD_SIZE"], "3");
  EXPECT_EQ(result["OMP_NUM_THREADS"], "2");
  EXPECT_EQ(result["TORCHELASTIC_RUN_ID"], "T1");
  EXPECT_EQ(result["TORCHELASTIC_RESTART_COUNT"], "0");
  EXPECT_THAT(said_, ElementsAre("[rank 2] hello"));
  EXPECT_EQ(host.ranks(), 0u);  // not kept warm
  EXPECT_EQ(host.rank_starts(), 4u);
  for (const char* log : {"rank0.log", "rank1.log", "rank2.log"}) {
    EXPECT_TRUE(std::filesystem::exists(dir_ / "logs" / log)) << log;
  }
  const Json document = ParseJson(ReadFile(dir_ / "_launcher/task_spec.json").value()).value();
  EXPECT_EQ(document["spec"], ParseJson(spec).value());
  EXPECT_EQ(ParseJson(ReadFile(dir_ / "_launcher/result.json").value()).value(), result);
}

TEST_F(RankHostTest, AWrongPlanStartsNoRank) {
  RankHost host(Options(), clock_);
  const v1::TaskFailed failed = Failed(Run(host, Training(0, "")));
  EXPECT_EQ(failed.code(), v1::TaskFailed::INVALID_SPEC);
  EXPECT_THAT(failed.message(), HasSubstr("spec.training.nproc_per_node: expected"));
  EXPECT_EQ(host.rank_starts(), 0u);
}

TEST_F(RankHostTest, ADeathStartsAllRanksAnewWhenAskedTo) {
  RankHost host(Options(), clock_);
  const Json result = Result(
      Run(host, Training(2, R"(, "max_restarts": 3)",
                         R"(, "scripts": {"1": ["attempt 0 crash 11", "attempt 1 exit 3"]})")));
  EXPECT_EQ(result["TORCHELASTIC_RESTART_COUNT"], "2");
  EXPECT_EQ(result["TORCHELASTIC_MAX_RESTARTS"], "3");
  EXPECT_EQ(host.rank_starts(), 6u);
  EXPECT_EQ(host.rank_deaths(), 2u);
  EXPECT_THAT(said_, ElementsAre("start 1 of at most 3 anew, from the last checkpoint, after: rank "
                                 "1 died: signal 11 (Segmentation fault)",
                                 "start 2 of at most 3 anew, from the last checkpoint, after: rank "
                                 "1 died: exit code 3"));
}

TEST_F(RankHostTest, TheLastDeathFailsTheTask) {
  RankHost host(Options(), clock_);
  const v1::TaskFailed failed = Failed(
      Run(host, Training(2, R"(, "max_restarts": 1)",
                         R"(, "scripts": {"0": ["hang"], "1": ["print the end", "crash 9"]})")));
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.rank_failure().rank(), 1);
  EXPECT_EQ(failed.rank_failure().signal(), SIGKILL);
  EXPECT_THAT(failed.message(), HasSubstr("rank 1 died: signal 9 (Killed)"));
  EXPECT_EQ(host.rank_starts(), 4u);
  EXPECT_EQ(host.ranks(), 0u);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "_launcher/result.json"));
}

TEST_F(RankHostTest, ATasksOwnFailureIsNotTriedAgain) {
  RankHost host(Options(), clock_);
  const v1::TaskFailed failed =
      Failed(Run(host, Training(2, R"(, "max_restarts": 3)",
                                R"(, "scripts": {"0": ["hang"], "1": ["fail no such column"]})")));
  EXPECT_EQ(failed.message(), "no such column");
  EXPECT_EQ(host.rank_starts(), 2u);
}

TEST_F(RankHostTest, ACancelledTaskIsNotStartedAnew) {
  RankHost host(Options(), clock_);
  on_line_ = [&] { cancel_.Request(absl::ZeroDuration(), "cancelled by a test"); };
  const v1::TaskFailed failed = Failed(
      Run(host, Training(2, R"(, "max_restarts": 3)", R"(, "script": ["log running", "hang"])")));
  EXPECT_EQ(failed.code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(host.rank_starts(), 2u);
}

TEST_F(RankHostTest, ARankLostOnAnotherMachineStartsThisOnesAnewToo) {
  RankHostOptions options = Options();
  options.node = {.count = 2, .rank = 1, .master_addr = "10.0.0.7", .master_port = 29500};
  RankHost host(options, clock_);
  const std::string script = R"(, "script": ["attempt 0 lose rank 0 is gone"])";
  const Json result = Result(Run(host, Training(2, R"(, "max_restarts": 1)", script)));
  EXPECT_EQ(result["RANK"], "2");
  EXPECT_EQ(result["WORLD_SIZE"], "4");
  EXPECT_EQ(result["MASTER_PORT"], "29501");  // of the second attempt

  RankHost alone(Options(), clock_);
  EXPECT_EQ(Failed(Run(alone, Training(2, R"(, "max_restarts": 1)", script))).code(),
            v1::TaskFailed::PEER_LOST);
}

TEST(DescribeRank, TellsWhatTheProgramCanRun) {
  const auto description = DescribeRank(ScriptedRank(), false, "", absl::Seconds(30));
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_THAT(description->task_types, ElementsAre("inference"));
  EXPECT_FALSE(description->cuda);
}

TEST(DescribeRank, SaysWhyAProgramCannotRun) {
  EXPECT_EQ(DescribeRank("/nonexistent/rank", false, "", absl::Seconds(30)).status().message(),
            "no rank program at /nonexistent/rank");
  EXPECT_EQ(DescribeRank("/bin/false", false, "", absl::Seconds(30)).status().message(),
            "the rank program does not start: exit code 1");
  EXPECT_EQ(DescribeRank("/bin/echo", false, "", absl::Seconds(30)).status().message(),
            "the rank program does not describe itself as expected");
  ::setenv("SCRIPTED_RANK_DESCRIBE", "fail", 1);
  EXPECT_EQ(DescribeRank(ScriptedRank(), false, "", absl::Seconds(30)).status().message(),
            "the rank program does not start: error while loading shared libraries: "
            "libtorch_cpu.so");
  ::unsetenv("SCRIPTED_RANK_DESCRIBE");
}

}  // namespace
}  // namespace flowmesh::executor
