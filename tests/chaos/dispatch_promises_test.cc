// What the worker promises about tasks that crash, hang or kill what runs them (PROMISES.md), on
// the whole line with two executors and a rank that does what its task says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/sidecar_client.h"
#include "common/clock.h"
#include "common/strings.h"
#include "tests/integration/eventually.h"
#include "tests/integration/in_process_executor.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

absl::Duration Now() { return Clock::Real().Monotonic(); }

Json Script(const std::vector<std::string>& steps) {
  return {{"taskType", "inference"}, {"script", steps}};
}

class Promises : public ::testing::Test {
 protected:
  void Start(std::vector<std::string> executors, std::map<std::string, std::string> sidecar = {},
             std::map<std::string, std::string> executor = {}) {
    executor["EXECUTOR_RANK_BIN"] =
        absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"), "/../tests/scripted_rank");
    sidecar["TERMINAL_EVENT_FLOOR_MS"] = "0";
    line_.emplace(LineOptions{
        .executors = std::move(executors), .sidecar_env = sidecar, .executor_env = executor});
  }
  Line& line() { return *line_; }

  std::string LogOf(const std::string& id) {
    return ReadFile(line().results() / id / "logs/task.log").value_or("");
  }
  bool WaitForLog(const std::string& id, const std::string& text) {
    return Eventually([&] { return absl::StrContains(LogOf(id), text); });
  }
  size_t EventsOf(const std::string& id, const std::string& type) {
    return line()
        .events()
        .All([&](const Json& e) { return e.value("task_id", "") == id && e["type"] == type; })
        .size();
  }
  Json EndOf(const std::string& id) {
    const auto end = line().events().WaitForTerminal(id);
    EXPECT_TRUE(end) << line().sidecar().Output();
    return end.value_or(Json::object());
  }
  // A fresh task of each kind that there is succeeds on `worker`.
  void ProveRecovery(const std::string& worker) {
    ASSERT_TRUE(line().WaitForStatus("IDLE", worker));
    for (const Json& spec : {kEcho, Script({"finish"})}) {
      EXPECT_EQ(EndOf(line().Dispatch(spec, Json::object(), worker))["type"], "TASK_SUCCEEDED");
    }
  }

 private:
  std::optional<Line> line_;
};

// --- P10 -----------------------------------------------------------------------------------------

TEST_F(Promises, P10_CancellationLeavesNoProcessAndNoSharedMemory) {
  Start({"e0"});
  const std::string segment = absl::StrCat("flowmesh-test-", ::getpid());
  const std::string id = line().Dispatch(
      Script({"ignore_term", "grandchild", "shared_memory /" + segment, "log at it", "hang"}));
  ASSERT_TRUE(WaitForLog(id, "at it"));
  ASSERT_TRUE(std::filesystem::exists("/dev/shm/" + segment));
  ASSERT_THAT(line().executor("e0").Children(), SizeIs(1));
  const absl::Duration begin = Now();
  client::SidecarClient client(line().sidecar_target());
  const auto answer = client.Cancel(id);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_LT(Now() - begin, absl::Seconds(10));  // a grace of 5 s, which this one uses up
  // When the answer is there, nothing else is.
  EXPECT_THAT(line().executor("e0").Children(), SizeIs(0));
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/" + segment));
  const Json end = EndOf(id);
  EXPECT_EQ(end["type"], "TASK_FAILED");
  EXPECT_THAT(end["error"], HasSubstr("cancelled"));
  ProveRecovery("w");
}

// --- P11 -----------------------------------------------------------------------------------------

TEST_F(Promises, P11_ARankThatDiesFailsItsOwnTaskWithTheCause) {
  Start({"e0", "e1"});
  const std::string other = line().Dispatch(Script({"log at it", "sleep 2500", "finish"}),
                                            Json::object(), line().worker_id("e1"));
  ASSERT_TRUE(WaitForLog(other, "at it"));
  struct Death {
    std::vector<std::string> steps;
    std::string text;
    int signal, exit_code;
  };
  const Death deaths[] = {
      {{"crash 9"}, "signal 9 (Killed), most often the system's answer to running out", SIGKILL, 0},
      {{"crash 11"}, "signal 11 (Segmentation fault)", SIGSEGV, 0},
      {{"exhaust_memory"}, "bad_alloc", SIGABRT, 0},
      {{"exit 0"}, "before its work was done", 0, 0},
      {{"exit 3"}, "3", 0, 3}};
  for (const Death& death : deaths) {
    std::vector<std::string> steps = {"print a last word"};
    steps.insert(steps.end(), death.steps.begin(), death.steps.end());
    const Json end = EndOf(line().Dispatch(Script(steps)));
    EXPECT_EQ(end["type"], "TASK_FAILED");
    EXPECT_THAT(end["error"], HasSubstr("rank 0 died: "));
    EXPECT_THAT(end["error"], HasSubstr(death.text));
    const Json record = end["payload"]["rank_failure"];
    EXPECT_EQ(record["rank"], 0);
    EXPECT_EQ(record["signal"], death.signal) << DumpJson(end);
    EXPECT_EQ(record["exit_code"], death.exit_code) << DumpJson(end);
    EXPECT_EQ(record["last_lines"][0], "a last word");
  }
  // Neither the other group nor the sidecar has noticed anything.
  EXPECT_EQ(EndOf(other)["type"], "TASK_SUCCEEDED");
  EXPECT_EQ(line().ResultFile(other)["tasks"], 1);
  EXPECT_FALSE(line().sidecar().process().Poll());
  ProveRecovery(line().worker_id("e0"));
  ProveRecovery(line().worker_id("e1"));
}

TEST_F(Promises, P11_AnExecutorThatDiesFailsItsOwnTaskWithTheCause) {
  Start({"e0", "e1"});
  std::map<std::string, std::string> ids;
  for (const std::string name : {"e0", "e1"}) {
    ids[name] = line().Dispatch(Script({"log at it", "sleep 1500", "finish"}), Json::object(),
                                line().worker_id(name));
    ASSERT_TRUE(WaitForLog(ids[name], "at it"));
  }
  const std::vector<pid_t> ranks = line().executor("e0").Children();
  ASSERT_THAT(ranks, SizeIs(1));
  line().executor("e0").process().Signal(SIGKILL);
  ASSERT_TRUE(line().WaitForStatus("STARTING", line().worker_id("e0")));
  EXPECT_EQ(line().redis().HashField("worker:w.e1", "status"), "RUNNING");
  EXPECT_TRUE(Eventually([&] { return ::kill(ranks[0], 0) != 0; }));  // it dies with its executor
  line().StartExecutor("e0");
  const Json end = EndOf(ids["e0"]);
  EXPECT_EQ(end["type"], "TASK_FAILED");
  EXPECT_EQ(end["error"], "executor e0 was lost while the task ran: it restarted");
  EXPECT_EQ(EndOf(ids["e1"])["type"], "TASK_SUCCEEDED");
  ProveRecovery(line().worker_id("e0"));
  ProveRecovery(line().worker_id("e1"));
}

// --- P12 -----------------------------------------------------------------------------------------

TEST_F(Promises, P12_ATaskThatMakesNoProgressIsEndedAndReportedAsHung) {
  Start({"e0"}, {}, {{"EXECUTOR_PROGRESS_TIMEOUT_SEC", "1"}});
  const std::string id = line().Dispatch(Script({"progress 1", "log at it", "hang"}));
  const Json end = EndOf(id);
  EXPECT_EQ(end["type"], "TASK_FAILED");
  EXPECT_EQ(end["error"],
            "the task hung: no progress within 1s (EXECUTOR_PROGRESS_TIMEOUT_SEC); it was ended");
  EXPECT_EQ(end["payload"]["failure"], "HUNG");
  EXPECT_THAT(line().executor("e0").Children(), SizeIs(0));
  // Slow is not hung.
  const std::string slow = line().Dispatch(
      Script({"progress 1", "sleep 500", "progress 2", "sleep 500", "log still", "sleep 500"}));
  EXPECT_EQ(EndOf(slow)["type"], "TASK_SUCCEEDED");
  ProveRecovery("w");
}

// The sidecar's own bound: executors are programs of many.
TEST_F(Promises, P12_AnExecutorThatAnswersHealthChecksAndMakesNoStepIsNoticed) {
  Start({"e0"}, {{"TASK_SILENCE_TIMEOUT_SEC", "1"}}, {{"EXECUTOR_PROGRESS_TIMEOUT_SEC", "0"}});
  const std::string id = line().Dispatch(Script({"log at it", "hang"}));
  const Json end = EndOf(id);
  EXPECT_EQ(end["type"], "TASK_FAILED");
  EXPECT_EQ(end["error"],
            "the task hung: executor e0 said nothing of it for 1s (TASK_SILENCE_TIMEOUT_SEC); it "
            "was ended");
  EXPECT_EQ(end["payload"]["failure"], "HUNG");
  EXPECT_THAT(line().executor("e0").Children(), SizeIs(0));
  // Slow is not hung.
  const std::string slow =
      line().Dispatch(Script({"log a", "sleep 600", "log b", "sleep 600", "log c", "finish"}));
  EXPECT_EQ(EndOf(slow)["type"], "TASK_SUCCEEDED");
  EXPECT_THAT(LogOf(slow), HasSubstr("c"));
  ProveRecovery("w");
}

TEST_F(Promises, P12_AnExecutorThatIsStoppedIsNoticed) {
  Start({"e0", "e1"}, {{"TASK_SILENCE_TIMEOUT_SEC", "1"}});
  const std::string id = line().Dispatch(Script({"log at it", "hang"}));
  ASSERT_TRUE(WaitForLog(id, "at it"));
  line().executor("e0").Freeze();
  const auto end = line().events().WaitForTerminal(id, absl::Seconds(40));
  ASSERT_TRUE(end) << line().sidecar().Output();
  EXPECT_EQ((*end)["payload"]["failure"], "HUNG");
  EXPECT_THAT((*end)["error"], HasSubstr("the executor does not answer"));
  // It is no longer offered, and nobody else is hurt.
  ASSERT_TRUE(line().WaitForStatus("STARTING", line().worker_id("e0"), absl::Seconds(40)));
  ProveRecovery(line().worker_id("e1"));
  line().executor("e0").process().Signal(SIGCONT);
  ProveRecovery(line().worker_id("e0"));
}

// --- P13 -----------------------------------------------------------------------------------------

TEST_F(Promises, P13_APoisonTaskIsQuarantinedAndOthersGoOn) {
  Start({"e0"});
  const Json poison = Script({"log run", "crash 11"});
  const auto publish = [&](const std::string& id, const Json& spec) {
    line().redis().Publish("tasks", Line::Envelope(id, spec, "w"));
  };
  // The different ones, in order: a sidecar that starts again may repeat the last.
  const auto ends = [&] {
    std::vector<Json> ends;
    for (const Json& event : line().events().All()) {
      if (event.value("task_id", "") != "poison" || event["type"] != "TASK_FAILED") continue;
      if (ends.empty() || ends.back() != event) ends.push_back(event);
    }
    return ends;
  };
  const auto wait_for_failures = [&](size_t count) {
    return Eventually([&] { return ends().size() == count; });
  };
  publish("poison", poison);
  ASSERT_TRUE(wait_for_failures(1));
  const absl::Duration died = Now();

  // The second try waits; the worker is free meanwhile.
  publish("poison", poison);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(EndOf(line().Dispatch(kEcho))["type"], "TASK_SUCCEEDED");
  }
  ASSERT_TRUE(line().WaitForStatus("IDLE", "w"));
  EXPECT_EQ(EventsOf("poison", "TASK_STARTED"), 1u);
  EXPECT_LT(Now() - died, absl::Milliseconds(900));
  ASSERT_TRUE(wait_for_failures(2));
  EXPECT_GE(Now() - died, absl::Milliseconds(900));
  EXPECT_EQ(EventsOf("poison", "TASK_STARTED"), 2u);

  // A restart forgets nothing.
  line().sidecar().process().Signal(SIGKILL);
  ASSERT_TRUE(line().sidecar().process().Wait(absl::Seconds(5)));
  line().redis().Command({"HSET", "worker:w", "status", "DEAD"});
  line().StartSidecar();
  ASSERT_TRUE(line().WaitForStatus("IDLE", "w"));
  publish("poison", poison);
  ASSERT_TRUE(wait_for_failures(3));
  const std::string why =
      "the task is quarantined: 3 runs of it ended their rank or executor (POISON_TASK_DEATHS)";
  EXPECT_THAT(ends()[2]["error"], HasSubstr("rank 0 died: signal 11"));
  EXPECT_THAT(ends()[2]["error"], HasSubstr(why));

  // From here on it does not run.
  publish("poison", poison);
  ASSERT_TRUE(wait_for_failures(4));
  EXPECT_EQ(ends()[3]["error"], why);
  EXPECT_EQ(ends()[3]["payload"]["failure"], "QUARANTINED");
  EXPECT_EQ(EventsOf("poison", "TASK_STARTED"), 3u);

  // Another document under its id is another task.
  publish("poison", Script({"finish"}));
  ASSERT_TRUE(Eventually([&] { return EventsOf("poison", "TASK_SUCCEEDED") == 1; }));
  ProveRecovery("w");
}

// Gets tasks and says nothing of them; those of another text it runs well.
class MuteExecutor final : public InProcessExecutor {
 public:
  int poisons() const { return poisons_; }

  grpc::Status Execute(grpc::ServerContext* context, const v1::ExecuteRequest* request,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override {
    if (absl::StrContains(request->document_json(), "poison")) {
      ++poisons_;
      Eventually([&] { return context->IsCancelled(); });
      return grpc::Status::CANCELLED;
    }
    v1::TaskEvent event;
    event.mutable_finished()->set_result_json("{}");
    writer->Write(event);
    return grpc::Status::OK;
  }

 private:
  std::atomic<int> poisons_{0};
};

TEST_F(Promises, P13_ATaskThatEndsItsExecutorBeforeItsFirstWordIsQuarantinedToo) {
  const TempDir dir;
  MuteExecutor executor;
  auto server = executor.Serve(dir / "e");
  Start({}, {{"EXECUTOR_ENDPOINTS", "e0=" + server->target()}, {"POISON_TASK_DEATHS", "2"}});
  ASSERT_TRUE(line().WaitForStatus("IDLE", "w"));
  const Json poison = {{"taskType", "echo"}, {"data", {{"items", {"poison"}}}}};
  std::string error;
  const auto fail = [&](size_t times) {
    line().redis().Publish("tasks", Line::Envelope("poison", poison, "w"));
    if (times <= 2) {
      ASSERT_TRUE(Eventually([&] { return executor.poisons() == static_cast<int>(times); }));
      server.reset();
      ASSERT_TRUE(line().WaitForStatus("STARTING", "w"));
      server = executor.Serve(dir / "e");
    }
    ASSERT_TRUE(Eventually([&] { return EventsOf("poison", "TASK_FAILED") == times; }));
    error = line()
                .events()
                .All([](const Json& e) { return e["type"] == "TASK_FAILED"; })
                .back()["error"];
  };
  ASSERT_NO_FATAL_FAILURE(fail(1));
  EXPECT_EQ(error, "executor e0 was lost while the task ran: it restarted");
  ASSERT_NO_FATAL_FAILURE(fail(2));
  EXPECT_THAT(error, HasSubstr("the task is quarantined"));
  ASSERT_NO_FATAL_FAILURE(fail(3));
  EXPECT_EQ(executor.poisons(), 2);
  EXPECT_EQ(EndOf(line().Dispatch(kEcho))["type"], "TASK_SUCCEEDED");
}

// --- P8 ------------------------------------------------------------------------------------------

TEST_F(Promises, P8_NoBeatIsMadeUpForAfterAStall) {
  Start({"e0"}, {{"HEARTBEAT_INTERVAL_SEC", "1"}});
  const auto beats = [&] {
    return line().events().Timed([](const Json& event) { return event["type"] == "HEARTBEAT"; });
  };
  ASSERT_TRUE(Eventually([&] { return beats().size() >= 2; }));
  const Subprocess& sidecar = line().sidecar().process();
  sidecar.Signal(SIGSTOP);
  const absl::Duration stalled = Now();
  Eventually([&] { return Now() - stalled >= absl::Milliseconds(2500); });
  sidecar.Signal(SIGCONT);
  const size_t before = beats().size();
  ASSERT_TRUE(Eventually([&] { return beats().size() >= before + 3; }));
  const auto all = beats();
  for (size_t i = before + 1; i < all.size(); ++i) {
    // The first one after the stall is late; those after it are where they would be anyhow.
    EXPECT_GT(all[i].first - all[i - 1].first, absl::Milliseconds(100)) << i;
  }
  ProveRecovery("w");
}

// --- Elastic scaling (PROTOCOL.md 9) -------------------------------------------------------------

TEST_F(Promises, P8_AWorkerThatIsSwitchedOffBeatsAndServesOn) {
  Start({"e0"}, {{"HEARTBEAT_INTERVAL_SEC", "1"}});
  line().redis().Command({"SADD", "workers:elastic_disabled", "w"});
  const auto beats = [&] {
    return line()
        .events()
        .All([](const Json& event) { return event["type"] == "HEARTBEAT"; })
        .size();
  };
  const size_t before = beats();
  ASSERT_TRUE(Eventually([&] { return beats() >= before + 2; }));
  EXPECT_EQ(line().redis().HashField("worker:w", "status"), "IDLE");
  EXPECT_EQ(line().redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  ProveRecovery("w");
  EXPECT_EQ(line().redis().Command({"SISMEMBER", "workers:elastic_disabled", "w"}), 1);
  line().redis().Command({"SREM", "workers:elastic_disabled", "w"});
  ProveRecovery("w");
}

}  // namespace
}  // namespace flowmesh::testing
