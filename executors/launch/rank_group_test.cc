#include "executors/launch/rank_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/json.h"

namespace flowmesh::executor {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kBound = absl::Seconds(30);

RankGroupOptions Options(int world_size = 1) {
  RankGroupOptions options;
  options.command = {std::string(std::getenv("FLOWMESH_BIN_DIR")) + "/../tests/scripted_rank"};
  options.world_size = world_size;
  options.threads = 4;
  options.failure_grace = absl::Milliseconds(200);
  return options;
}

v1::RunTask Task(const std::string& spec) {
  v1::RunTask task;
  task.mutable_task()->set_task_id("T1");
  task.mutable_task()->set_document_json(absl::StrCat(R"({"spec": )", spec, "}"));
  return task;
}

// A ready group, and what it said while it ran.
class RankGroupTest : public ::testing::Test {
 protected:
  void Start(const RankGroupOptions& options) {
    absl::StatusOr<std::unique_ptr<RankGroup>> group = RankGroup::Start(options);
    ASSERT_TRUE(group.ok()) << group.status();
    group_ = *std::move(group);
    ASSERT_FALSE(group_->WaitReady(kBound).has_value());
  }

  RankGroup::Outcome Run(const std::string& spec) {
    return group_->Run(Task(spec), logs_.path(), [this](int rank, const v1::FromRank& message) {
      if (message.has_log_line()) {
        said_.push_back(absl::StrCat(rank, ":", message.log_line().text()));
      }
    });
  }

  static Json Result(const RankGroup::Outcome& outcome) {
    const auto* finished = std::get_if<v1::TaskFinished>(&outcome);
    EXPECT_NE(finished, nullptr);
    return finished == nullptr ? Json() : ParseJson(finished->result_json()).value();
  }

  static RankDeath Death(const RankGroup::Outcome& outcome) {
    const auto* death = std::get_if<RankDeath>(&outcome);
    EXPECT_NE(death, nullptr);
    return death == nullptr ? RankDeath{} : *death;
  }

  const TempDir logs_;
  std::unique_ptr<RankGroup> group_;
  std::vector<std::string> said_;
};

bool Exists(pid_t pid) { return ::kill(pid, 0) == 0; }

TEST_F(RankGroupTest, RunsTasksOneAfterTheOtherInTheSameProcess) {
  Start(Options());
  const Json first = Result(Run(R"({"script": ["log hello", "finish"]})"));
  const Json second = Result(Run(R"({"script": ["finish"]})"));
  EXPECT_THAT(said_, ElementsAre("0:hello"));
  EXPECT_EQ(first["pid"], second["pid"]);
  EXPECT_EQ(second["tasks"], 2);
  EXPECT_TRUE(group_->alive());
  EXPECT_EQ(group_->ready().device(), "cpu");
}

TEST_F(RankGroupTest, RanksFindTheirPlaceInTheEnvironment) {
  RankGroupOptions options = Options(2);
  options.use_cuda = true;
  options.visible_devices = "GPU-a,GPU-b";
  Start(options);
  const Json result = Result(Run(R"({})"));
  EXPECT_EQ(result["RANK"], "0");
  EXPECT_EQ(result["LOCAL_RANK"], "0");
  EXPECT_EQ(result["WORLD_SIZE"], "2");
  EXPECT_EQ(result["MASTER_ADDR"], "127.0.0.1");
  EXPECT_GT(std::stoi(result["MASTER_PORT"].get<std::string>()), 0);
  EXPECT_EQ(result["CUDA_VISIBLE_DEVICES"], "GPU-a,GPU-b");
  EXPECT_EQ(result["OMP_NUM_THREADS"], "2");
  EXPECT_EQ(result["GOMP_SPINCOUNT"], "1000");
  EXPECT_EQ(result["MALLOC_MMAP_THRESHOLD_"], "1048576");
  EXPECT_EQ(result["FLOWMESH_RANK_DEVICE"], "cuda");
}

TEST_F(RankGroupTest, GroupsOfSeveralMachinesAreOneWorld) {
  RankGroupOptions options = Options(2);
  options.node = {.count = 3, .rank = 1, .master_addr = "10.0.0.7", .master_port = 29500};
  options.run_id = "T1";
  options.restart_count = 1;
  options.max_restarts = 4;
  Start(options);
  const Json result = Result(Run(R"({"scripts": {"3": ["log second", "finish"]}})"));
  EXPECT_THAT(said_, ElementsAre("3:second"));
  EXPECT_EQ(result["RANK"], "2");
  EXPECT_EQ(result["LOCAL_RANK"], "0");
  EXPECT_EQ(result["WORLD_SIZE"], "6");
  EXPECT_EQ(result["LOCAL_WORLD_SIZE"], "2");
  EXPECT_EQ(result["GROUP_RANK"], "1");
  EXPECT_EQ(result["MASTER_ADDR"], "10.0.0.7");
  EXPECT_EQ(result["MASTER_PORT"], "29500");
  EXPECT_EQ(result["TORCHELASTIC_RUN_ID"], "T1");
  EXPECT_EQ(result["TORCHELASTIC_RESTART_COUNT"], "1");
  EXPECT_EQ(result["TORCHELASTIC_MAX_RESTARTS"], "4");
  EXPECT_TRUE(std::filesystem::exists(logs_ / "rank3.log"));
}

TEST_F(RankGroupTest, ACpuRankSeesNoGpu) {
  RankGroupOptions options = Options();
  options.visible_devices = "GPU-a";
  Start(options);
  const Json result = Result(Run(R"({})"));
  EXPECT_EQ(result["CUDA_VISIBLE_DEVICES"], "");
  EXPECT_EQ(result["FLOWMESH_RANK_DEVICE"], "cpu");
}

TEST_F(RankGroupTest, OutputGoesToTheTasksFile) {
  Start(Options());
  Run(R"({"script": ["print to the file", "finish"]})");
  EXPECT_EQ(ReadFile(logs_ / "rank0.log").value(), "to the file\n");
}

TEST_F(RankGroupTest, MuchOutputDoesNotStopARank) {
  Start(Options());
  Result(Run(R"({"script": ["flood 20000000", "finish"]})"));
  EXPECT_EQ(std::filesystem::file_size(logs_ / "rank0.log"), 20000000u);
}

TEST_F(RankGroupTest, ALargeDocumentArrivesWhole) {
  Start(Options());
  const std::string large(20 << 20, 'x');
  EXPECT_EQ(Result(Run(absl::StrCat(R"({"script": [], "data": ")", large, R"("})")))["ok"], true);
}

TEST_F(RankGroupTest, AFailedTaskLeavesTheRankAlive) {
  Start(Options());
  const RankGroup::Outcome outcome = Run(R"({"script": ["fail spec.model: required"]})");
  const auto* failed = std::get_if<v1::TaskFailed>(&outcome);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->message(), "spec.model: required");
  EXPECT_TRUE(group_->alive());
  EXPECT_EQ(Result(Run(R"({})"))["tasks"], 2);
}

TEST_F(RankGroupTest, ACrashIsReportedWithSignalAndLastLines) {
  Start(Options());
  const RankDeath death = Death(Run(R"({"script": ["print last words", "crash 11"]})"));
  EXPECT_EQ(death.rank, 0);
  EXPECT_EQ(death.status.signal, SIGSEGV);
  EXPECT_THAT(death.last_lines, Contains("last words"));
  EXPECT_EQ(death.ToString(), "rank 0 died: signal 11 (Segmentation fault)");
  EXPECT_FALSE(group_->alive());
  EXPECT_TRUE(group_->WaitGone(absl::ZeroDuration()));
}

TEST_F(RankGroupTest, ExitZeroBeforeTheAnswerIsADeathToo) {
  Start(Options());
  const RankDeath death = Death(Run(R"({"script": ["exit 0"]})"));
  EXPECT_TRUE(death.status.ok());
  EXPECT_EQ(death.ToString(), "rank 0 died: exit code 0 before its work was done");
}

TEST_F(RankGroupTest, AnExitCodeIsReported) {
  Start(Options());
  EXPECT_EQ(Death(Run(R"({"script": ["exit 7"]})")).status.exit_code, 7);
}

TEST_F(RankGroupTest, AMessageSentJustBeforeTheDeathStillCounts) {
  Start(Options());
  Death(Run(R"({"script": ["log said at the end", "exit 3"]})"));
  EXPECT_THAT(said_, ElementsAre("0:said at the end"));
}

TEST_F(RankGroupTest, AMalformedFrameEndsTheRank) {
  Start(Options());
  EXPECT_THAT(Death(Run(R"({"script": ["malformed"]})")).ToString(),
              HasSubstr("rank 0 broke the protocol (a malformed frame) and was ended"));
}

TEST_F(RankGroupTest, AFrameOverTheLimitEndsTheRank) {
  Start(Options());
  EXPECT_THAT(Death(Run(R"({"script": ["ignore_term", "huge"]})")).ToString(),
              HasSubstr("rank 0 broke the protocol (frame of 2147483647 bytes"));
}

TEST_F(RankGroupTest, AnAnswerWithoutATaskEndsTheRank) {
  Start(Options());
  Result(Run(R"({"script": ["answer_twice"]})"));
  EXPECT_TRUE(group_->WaitGone(kBound));
  EXPECT_FALSE(group_->alive());
}

TEST_F(RankGroupTest, ARankThatClosesItsConnectionIsEnded) {
  Start(Options());
  EXPECT_EQ(Death(Run(R"({"script": ["close"]})")).ToString(),
            "rank 0 closed its connection and was ended");
}

TEST_F(RankGroupTest, TheFirstDeathEndsTheOthers) {
  Start(Options(3));
  const std::vector<pid_t> pids = group_->pids();
  const RankDeath death =
      Death(Run(R"({"scripts": {"0": ["ignore_term", "hang"], "1": ["exit 5"], "2": ["hang"]}})"));
  EXPECT_EQ(death.rank, 1);
  EXPECT_EQ(death.status.exit_code, 5);
  for (const pid_t pid : pids) EXPECT_FALSE(Exists(pid));
}

TEST_F(RankGroupTest, TheFirstFailureOfSeveralRanksIsTheOutcome) {
  Start(Options(2));
  const RankGroup::Outcome outcome =
      Run(R"({"scripts": {"0": ["hang"], "1": ["fail loss is not finite in step 3"]}})");
  const auto* failed = std::get_if<v1::TaskFailed>(&outcome);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->message(), "loss is not finite in step 3");
  EXPECT_TRUE(group_->WaitGone(absl::ZeroDuration()));
}

TEST_F(RankGroupTest, ALostPeerNeverHidesTheDeathThatIsTheCause) {
  RankGroupOptions options = Options(3);
  options.failure_grace = kBound;  // the cause comes first, however late
  Start(options);
  const RankDeath death = Death(Run(
      R"({"scripts": {"0": ["lose rank 1 is gone"], "1": ["sleep 100", "crash 11"], "2": ["lose it too"]}})"));
  EXPECT_EQ(death.rank, 1);
  EXPECT_EQ(death.status.signal, SIGSEGV);
}

TEST_F(RankGroupTest, ALostPeerNeverHidesTheFailureThatIsTheCause) {
  RankGroupOptions options = Options(2);
  options.failure_grace = kBound;
  Start(options);
  const RankGroup::Outcome outcome = Run(
      R"({"scripts": {"0": ["lose rank 1 has left"], "1": ["sleep 100", "fail a full disk"]}})");
  const auto* failed = std::get_if<v1::TaskFailed>(&outcome);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->message(), "a full disk");
}

TEST_F(RankGroupTest, ALostPeerEndsTheGroupWhenNothingElseDoes) {
  Start(Options(2));
  const RankGroup::Outcome outcome =
      Run(R"({"scripts": {"0": ["hang"], "1": ["lose rank 7 is gone"]}})");
  const auto* failed = std::get_if<v1::TaskFailed>(&outcome);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->code(), v1::TaskFailed::PEER_LOST);
  EXPECT_EQ(failed->message(), "rank 7 is gone");
  EXPECT_TRUE(group_->WaitGone(absl::ZeroDuration()));
}

TEST_F(RankGroupTest, PeersThatAllLostOneAreAnAnswer) {
  RankGroupOptions options = Options(2);
  options.failure_grace = kBound;
  Start(options);
  const RankGroup::Outcome outcome = Run(R"({"script": ["lose rank 7 is gone"]})");
  EXPECT_NE(std::get_if<v1::TaskFailed>(&outcome), nullptr);
}

TEST_F(RankGroupTest, AllRanksMustFinish) {
  Start(Options(2));
  EXPECT_EQ(Result(Run(R"({"scripts": {"0": ["finish"], "1": ["sleep 50", "finish"]}})"))["RANK"],
            "0");
  EXPECT_TRUE(group_->alive());
}

// Runs `spec` on a thread until its rank has said "now", then stops the group.
RankGroup::Outcome RunAndStop(RankGroup& group, const std::string& spec, absl::Duration grace) {
  absl::Notification now;
  std::thread stopper([&] {
    now.WaitForNotification();
    group.Stop(grace);
  });
  RankGroup::Outcome outcome =
      group.Run(Task(spec), {}, [&](int, const v1::FromRank&) { now.Notify(); });
  stopper.join();
  return outcome;
}

TEST_F(RankGroupTest, AStopReachesARankThatListens) {
  Start(Options());
  const absl::Duration start = Clock::Real().Monotonic();
  const RankGroup::Outcome outcome =
      RunAndStop(*group_, R"({"script": ["ignore_term", "log now", "until_stopped"]})", kBound);
  const auto* failed = std::get_if<v1::TaskFailed>(&outcome);
  ASSERT_NE(failed, nullptr);
  EXPECT_EQ(failed->message(), "stopped");
  EXPECT_LT(Clock::Real().Monotonic() - start, kBound / 2);
  EXPECT_TRUE(group_->WaitGone(absl::ZeroDuration()));
}

TEST_F(RankGroupTest, AStopEndsAHangingRankBySigterm) {
  Start(Options());
  const pid_t pid = group_->pids()[0];
  const absl::Duration start = Clock::Real().Monotonic();
  const auto outcome = RunAndStop(*group_, R"({"script": ["log now", "hang"]})", kBound);
  EXPECT_TRUE(std::holds_alternative<RankGroup::Stopped>(outcome));
  EXPECT_LT(Clock::Real().Monotonic() - start, kBound / 2);
  EXPECT_FALSE(Exists(pid));
}

TEST_F(RankGroupTest, AStopEndsARankThatIgnoresSigterm) {
  Start(Options());
  const pid_t pid = group_->pids()[0];
  const auto outcome = RunAndStop(*group_, R"({"script": ["ignore_term", "log now", "hang"]})",
                                  absl::Milliseconds(100));
  EXPECT_TRUE(std::holds_alternative<RankGroup::Stopped>(outcome));
  EXPECT_FALSE(Exists(pid));
}

TEST_F(RankGroupTest, AStopLeavesNoSharedMemory) {
  Start(Options());
  const std::string name = absl::StrCat("flowmesh-test-", ::getpid());
  const std::filesystem::path segment = "/dev/shm/" + name;
  bool was_there = false;
  const auto outcome = group_->Run(
      Task(absl::StrCat(R"({"script": ["shared_memory /)", name, R"(", "log now", "hang"]})")), {},
      [&](int, const v1::FromRank&) {
        was_there = std::filesystem::exists(segment);
        group_->Stop(absl::ZeroDuration());
      });
  EXPECT_TRUE(std::holds_alternative<RankGroup::Stopped>(outcome));
  EXPECT_TRUE(was_there);
  EXPECT_FALSE(std::filesystem::exists(segment));
}

TEST_F(RankGroupTest, AStoppedProcessIsEndedToo) {
  Start(Options());
  const pid_t pid = group_->pids()[0];
  ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  group_->Stop(absl::Milliseconds(100));
  EXPECT_TRUE(group_->WaitGone(kBound));
  EXPECT_FALSE(Exists(pid));
}

TEST_F(RankGroupTest, ASecondStopShortensTheGrace) {
  Start(Options());
  absl::Notification now;
  std::thread stopper([&] {
    now.WaitForNotification();
    group_->Stop(absl::Hours(1));
    group_->Stop(absl::ZeroDuration());
  });
  const auto outcome = group_->Run(Task(R"({"script": ["ignore_term", "log now", "hang"]})"), {},
                                   [&](int, const v1::FromRank&) { now.Notify(); });
  stopper.join();
  EXPECT_TRUE(std::holds_alternative<RankGroup::Stopped>(outcome));
}

TEST_F(RankGroupTest, GrandchildrenEndWithTheirRank) {
  Start(Options());
  const pid_t grandchild = Result(Run(R"({"script": ["grandchild"]})"))["grandchild"];
  ASSERT_GT(grandchild, 0);
  ASSERT_TRUE(Exists(grandchild));
  Death(Run(R"({"script": ["crash 9"]})"));
  EXPECT_FALSE(Exists(grandchild));
}

TEST_F(RankGroupTest, ADeathWhileIdleIsNoticed) {
  Start(Options());
  ::kill(group_->pids()[0], SIGKILL);
  ASSERT_TRUE(group_->WaitGone(kBound));
  EXPECT_FALSE(group_->alive());
  EXPECT_THAT(Death(Run("{}")).ToString(), HasSubstr("signal 9 (Killed), most often"));
}

TEST_F(RankGroupTest, ADeathBeforeReadyIsReported) {
  const TempDir logs;
  RankGroupOptions options = Options();
  options.env["SCRIPTED_RANK_START"] = "print cannot find the weights, exit 4";
  options.logs_dir = logs.path();
  auto group = RankGroup::Start(options);
  ASSERT_TRUE(group.ok());
  const auto over = (*group)->WaitReady(kBound);
  ASSERT_TRUE(over.has_value());
  const auto* death = std::get_if<RankDeath>(&*over);
  ASSERT_NE(death, nullptr);
  EXPECT_EQ(death->status.exit_code, 4);
  EXPECT_THAT(death->last_lines, ElementsAre("cannot find the weights"));
  EXPECT_EQ(ReadFile(logs / "rank0.log").value(), "cannot find the weights\n");
}

TEST_F(RankGroupTest, ARankThatIsNeverReadyIsEnded) {
  RankGroupOptions options = Options();
  options.env["SCRIPTED_RANK_START"] = "ignore_term,hang";
  auto group = RankGroup::Start(options);
  ASSERT_TRUE(group.ok());
  const auto over = (*group)->WaitReady(absl::Milliseconds(100));
  ASSERT_TRUE(over.has_value());
  EXPECT_EQ(std::get<RankDeath>(*over).ToString(),
            "rank 0 was not ready within 100ms and was ended");
}

TEST_F(RankGroupTest, AStopEndsTheWaitForReady) {
  RankGroupOptions options = Options();
  options.env["SCRIPTED_RANK_START"] = "hang";
  auto group = RankGroup::Start(options);
  ASSERT_TRUE(group.ok());
  (*group)->Stop(absl::ZeroDuration());
  const auto over = (*group)->WaitReady(kBound);
  ASSERT_TRUE(over.has_value());
  EXPECT_TRUE(std::holds_alternative<RankGroup::Stopped>(*over));
}

TEST_F(RankGroupTest, AProgramThatDoesNotExistIsAnError) {
  RankGroupOptions options = Options();
  options.command = {"/nonexistent/rank"};
  EXPECT_TRUE(absl::IsNotFound(RankGroup::Start(options).status()));
}

TEST_F(RankGroupTest, DestructionEndsEverything) {
  Start(Options(2));
  const std::vector<pid_t> pids = group_->pids();
  group_.reset();
  for (const pid_t pid : pids) EXPECT_FALSE(Exists(pid));
}

}  // namespace
}  // namespace flowmesh::executor
