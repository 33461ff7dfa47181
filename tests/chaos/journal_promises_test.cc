// What the worker promises about accepted tasks (PROMISES.md), on the whole line: the sidecar is
// killed at each of its writes to disk, and at other bad moments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/http.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "tests/integration/eventually.h"
#include "tests/integration/in_process_executor.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

Json EchoTo(const std::string& url) {
  Json spec = kEcho;
  spec["output"] = {{"destination", {{"type", "http"}, {"url", url}}}};
  return spec;
}

std::vector<Json> EventsOf(Line& line, const std::string& id, std::string_view type) {
  return line.events().All(
      [&](const Json& event) { return event.value("task_id", "") == id && event["type"] == type; });
}

// The different ends that were told of a task: repetitions have the same words.
std::set<std::string> Ends(Line& line, const std::string& id) {
  std::set<std::string> ends;
  for (const Json& event : line.events().All()) {
    const std::string type = event.value("type", "");
    if (event.value("task_id", "") != id) continue;
    if (type == "TASK_SUCCEEDED" || type == "TASK_FAILED") ends.insert(DumpJson(event));
  }
  return ends;
}

void ExpectEndsWell(Line& line, absl::Duration limit) {
  const auto status = line.sidecar().process().Wait(limit);
  ASSERT_TRUE(status) << line.sidecar().Output();
  EXPECT_TRUE(status->ok()) << status->ToString();
}

// How often an executor has computed it.
int Runs(Line& line, const std::string& id) {
  const std::string log = ReadFile(line.results() / id / "logs/task.log").value_or("");
  int runs = 0;
  for (size_t at = log.find("echo: "); at != std::string::npos; at = log.find("echo: ", at + 1)) {
    ++runs;
  }
  return runs;
}

// Starts the sidecar again and waits until it is IDLE, that is until nothing is left of its
// journal.
void RestartUntilIdle(Line& line) {
  line.redis().Command({"HSET", "worker:w", "status", "DEAD"});
  line.StartSidecar();
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w")) << line.sidecar().Output();
}

void Kill(Line& line) {
  line.sidecar().process().Signal(SIGKILL);
  ASSERT_TRUE(line.sidecar().process().Wait(absl::Seconds(5)));
}

void Publish(Line& line, Json envelope) { line.redis().Publish("tasks", envelope); }

// A rank that does what `spec.script` of an inference task says.
std::map<std::string, std::string> ScriptedRank() {
  return {{"EXECUTOR_RANK_BIN",
           absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"), "/../tests/scripted_rank")}};
}

bool WaitForMetric(Line& line, const std::string& name, int value) {
  HttpRequest request;
  request.url = line.metrics_url() + "/metrics";
  return Eventually([&] {
    const absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
    return response.ok() &&
           absl::StrContains(response->body, absl::StrCat("\n", name, " ", value, "\n"));
  });
}

// Waits until the journal holds so many tasks.
bool WaitForJournal(Line& line, int tasks) {
  return WaitForMetric(line, "flowmesh_journal_open_tasks", tasks);
}

// A fresh task succeeds; empty, or what is wrong.
std::string ProveRecovery(Line& line) {
  const std::string id = line.Dispatch(kEcho);
  const auto end = line.events().WaitForTerminal(id);
  if (!end) return "no end of a fresh task";
  return (*end)["type"] == "TASK_SUCCEEDED" ? "" : DumpJson(*end);
}

class Promises : public ::testing::Test {};

TEST_F(Promises, P4_AnAcceptedTaskIsNotForgottenWhereverTheSidecarIsKilled) {
  const TestHttpServer receiver([](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(R"({"ok":true,"path":"p"})", "application/json");
  });
  TempDir orders;
  const std::string order = orders / "order";
  Line line({.sidecar_env = {{"LD_PRELOAD", std::getenv("CRASH_LIBRARY")},
                             {"CRASH_AT_SYNC", order},
                             {"TERMINAL_EVENT_FLOOR_MS", "0"}}});
  int crashes = 0;
  for (const std::string when : {"before", "after"}) {
    for (int at = 1;; ++at) {
      const std::string round = absl::StrCat(when, "-", at);
      ASSERT_LT(at, 60) << "the writes do not end";
      ASSERT_TRUE(WriteFileAtomically(order, absl::StrCat(at, " ", when)).ok());
      const std::vector<std::string> ids = {round + "-disk", round + "-http"};
      Publish(line, Line::Envelope(ids[0], kEcho, "w"));
      Publish(line, Line::Envelope(ids[1], EchoTo(receiver.url("/api/v1/results")), "w"));
      bool died = false;
      ASSERT_TRUE(Eventually([&] {
        died = line.sidecar().process().Poll().has_value();
        return died || (!Ends(line, ids[0]).empty() && !Ends(line, ids[1]).empty());
      })) << line.sidecar().Output();
      std::filesystem::remove(order);
      if (!died) {  // it may die of the write after the last end yet
        died = line.sidecar().process().Wait(absl::Milliseconds(200)).has_value();
      }
      if (died) {
        ++crashes;
        RestartUntilIdle(line);
      }
      for (const std::string& id : ids) {
        // What nobody has heard of may be lost with the message; what was begun has one end.
        const bool begun = !EventsOf(line, id, "TASK_STARTED").empty();
        EXPECT_TRUE(begun || died) << id;
        if (!begun) {
          EXPECT_THAT(Ends(line, id), IsEmpty()) << id;
          continue;
        }
        // Events come over another connection than the status.
        EXPECT_TRUE(Eventually([&] { return !Ends(line, id).empty(); }));
        const std::set<std::string> ends = Ends(line, id);
        ASSERT_THAT(ends, SizeIs(1)) << id << "\n" << line.sidecar().Output();
        EXPECT_EQ(ParseJson(*ends.begin()).value()["type"], "TASK_SUCCEEDED");
        EXPECT_EQ(line.ResultFile(id)["ok"], true);
        EXPECT_EQ(Runs(line, id), 1) << id;
      }
      std::set<std::string> bodies;
      for (const httplib::Request& request : receiver.requests()) {
        if (absl::StrContains(request.body, ids[1])) bodies.insert(request.body);
      }
      EXPECT_EQ(bodies.size(), Ends(line, ids[1]).size()) << ids[1];
      if (!died) break;
    }
  }
  // Accepting, two files and concluding at the very least; tasks may share a commit.
  EXPECT_GE(crashes, 2 * 3);
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P5_ADuplicateRunsOnceAlsoAcrossARestart) {
  Line line;
  Json envelope = Line::Envelope("t", kEcho, "w");
  envelope["dispatched_at"] = "2025-11-03T09:01:00.000001+00:00";
  for (int i = 0; i < 3; ++i) Publish(line, envelope);
  ASSERT_TRUE(line.events().WaitForTerminal("t"));
  Publish(line, envelope);
  EXPECT_EQ(ProveRecovery(line), "");  // it came after that
  Kill(line);
  RestartUntilIdle(line);
  Publish(line, envelope);
  EXPECT_EQ(ProveRecovery(line), "");
  EXPECT_THAT(EventsOf(line, "t", "TASK_STARTED"), SizeIs(1));
  EXPECT_THAT(EventsOf(line, "t", "TASK_SUCCEEDED"), SizeIs(1));
  EXPECT_EQ(Runs(line, "t"), 1);

  // A new attempt of the same document gets the result that is there.
  envelope["dispatched_at"] = "2025-11-03T09:02:00.000001+00:00";
  std::filesystem::remove(line.results() / "t/responses.json");
  Publish(line, envelope);
  ASSERT_TRUE(Eventually([&] { return EventsOf(line, "t", "TASK_SUCCEEDED").size() == 2; }));
  EXPECT_THAT(EventsOf(line, "t", "TASK_STARTED"), SizeIs(2));
  EXPECT_EQ(line.ResultFile("t")["ok"], true);
  EXPECT_EQ(Runs(line, "t"), 1);

  // Of another document it runs.
  envelope["dispatched_at"] = "2025-11-03T09:03:00.000001+00:00";
  envelope["task"]["spec"]["data"]["items"] = {"another question"};
  Publish(line, envelope);
  ASSERT_TRUE(Eventually([&] { return EventsOf(line, "t", "TASK_SUCCEEDED").size() == 3; }));
  EXPECT_EQ(Runs(line, "t"), 2);
}

TEST_F(Promises, P5_ATaskIsKnownForAsLongAsItsResultIsKept) {
  Line line({.sidecar_env = {{"TERMINAL_EVENT_FLOOR_MS", "0"}, {"LOG_LEVEL", "ERROR"}}});
  Json envelope = Line::Envelope("first", kEcho, "w");
  Publish(line, envelope);
  ASSERT_TRUE(line.events().WaitForTerminal("first"));
  // More than are remembered outside of the journal.
  constexpr int kOthers = 5100;
  std::vector<Json> others;
  for (int i = 0; i < kOthers; ++i) {
    others.push_back(Line::Envelope(absl::StrCat("other-", i), {{"taskType", "echo"}}, "w"));
  }
  line.redis().PublishAll("tasks", others);
  ASSERT_TRUE(line.events().WaitForTerminal(absl::StrCat("other-", kOthers - 1)));
  Publish(line, envelope);
  EXPECT_EQ(ProveRecovery(line), "");  // it came after that
  EXPECT_THAT(EventsOf(line, "first", "TASK_STARTED"), SizeIs(1));
  envelope["dispatched_at"] = "2025-11-03T09:02:00.000001+00:00";
  Publish(line, envelope);
  ASSERT_TRUE(Eventually([&] { return EventsOf(line, "first", "TASK_SUCCEEDED").size() == 2; }));
  EXPECT_EQ(Runs(line, "first"), 1);
}

// Leaves an export behind, and counts its runs.
class ExportingExecutor final : public InProcessExecutor {
 public:
  int runs() const { return runs_; }

  grpc::Status Execute(grpc::ServerContext*, const v1::ExecuteRequest* request,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override {
    ++runs_;
    const std::filesystem::path file =
        std::filesystem::path(request->task_dir()) / "artifacts/export.jsonl";
    EXPECT_TRUE(WriteFileAtomically(file, "{}\n").ok());
    v1::TaskEvent event;
    event.mutable_started();
    writer->Write(event);
    event.set_sequence(1);
    v1::TaskFinished& finished = *event.mutable_finished();
    finished.set_result_json(R"({"ok": true, "jsonl_export": {}})");
    v1::OutputFile& output = *finished.add_outputs();
    output.set_kind(v1::OutputFile::JSONL_EXPORT);
    output.set_task_id(request->task_id());
    output.set_path(file.string());
    writer->Write(event);
    return grpc::Status::OK;
  }

 private:
  std::atomic<int> runs_{0};
};

TEST_F(Promises, P5_AResultWhoseFilesAreGoneIsComputedAgain) {
  const TempDir dir;
  ExportingExecutor executor;
  const auto server = executor.Serve(dir / "e");
  std::atomic<bool> is_away{false};
  const TestHttpServer receiver([&](const httplib::Request&, httplib::Response& reply) {
    if (is_away) reply.status = 503;
  });
  Line line({.executors = {},
             .sidecar_env = {{"EXECUTOR_ENDPOINTS", server->target()},
                             {"TERMINAL_EVENT_FLOOR_MS", "0"}}});
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  Json envelope = Line::Envelope("t", EchoTo(receiver.url("/results")), "w");
  const auto publish = [&](int attempt) {
    envelope["dispatched_at"] = absl::StrCat("2025-11-03T09:0", attempt, ":00.000001+00:00");
    Publish(line, envelope);
  };
  const auto succeeds = [&](size_t times) {
    return Eventually([&] { return EventsOf(line, "t", "TASK_SUCCEEDED").size() == times; });
  };
  const std::filesystem::path file = line.results() / "t/artifacts/export.jsonl";
  publish(1);
  ASSERT_TRUE(succeeds(1));
  publish(2);
  ASSERT_TRUE(succeeds(2));
  EXPECT_EQ(executor.runs(), 1);
  std::filesystem::remove(file);
  publish(3);
  ASSERT_TRUE(succeeds(3));
  EXPECT_EQ(executor.runs(), 2);

  // And one that waits for its receiver over the sidecar's death.
  is_away = true;
  envelope["task"]["spec"]["data"]["items"] = {"another question"};
  const size_t requests = receiver.requests().size();
  publish(4);
  ASSERT_TRUE(Eventually([&] { return receiver.requests().size() > requests; }));
  EXPECT_EQ(executor.runs(), 3);
  Kill(line);
  std::filesystem::remove(file);
  is_away = false;
  RestartUntilIdle(line);
  ASSERT_TRUE(succeeds(4));
  EXPECT_EQ(executor.runs(), 4);
}

TEST_F(Promises, P6_AReplyThatIsLostDoublesNothing) {
  // Stores the result and hangs up, as a proxy does that dies: the first two times.
  std::atomic<int> calls{0};
  std::map<std::string, std::string> stored;
  absl::Mutex mutex;
  const TestHttpServer receiver([&](const httplib::Request& request, httplib::Response& reply) {
    const Json body = ParseJson(request.body).value();
    {
      absl::MutexLock lock(&mutex);
      const auto [old, is_new] = stored.emplace(body["task_id"], request.body);
      EXPECT_TRUE(is_new || old->second == request.body);
    }
    if (++calls <= 2) {
      reply.set_content_provider(1000, "text/plain",
                                 [](size_t, size_t, httplib::DataSink&) { return false; });
    }
  });
  Line line;
  const std::string id = line.Dispatch(EchoTo(receiver.url()));
  ASSERT_TRUE(line.events().WaitForTerminal(id));
  EXPECT_EQ(calls, 3);
  EXPECT_THAT(Ends(line, id), SizeIs(1));
  EXPECT_EQ(Runs(line, id), 1);
  absl::MutexLock lock(&mutex);
  EXPECT_THAT(stored, SizeIs(1));
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P7_AResultOutlivesAnOutageOfTheOrchestratorAndOfTheSidecar) {
  std::optional<TestHttpServer> receiver;
  const auto accept = [](const httplib::Request&, httplib::Response&) {};
  receiver.emplace(accept);
  const std::string url = receiver->url("/api/v1/results");
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  receiver.reset();

  Line line;
  const std::string id = line.Dispatch(EchoTo(url));
  ASSERT_TRUE(line.events().WaitForStarted(id));
  ASSERT_TRUE(Eventually([&] { return Runs(line, id) == 1; }));
  ASSERT_TRUE(line.sidecar().WaitForOutput("; again in "));
  Kill(line);
  line.executor("e0").process().Signal(SIGKILL);  // it no longer knows the task either
  line.StartExecutor("e0");
  line.StartSidecar();
  ASSERT_TRUE(line.sidecar().WaitForOutput("its result is delivered"));
  EXPECT_THAT(Ends(line, id), IsEmpty());
  receiver.emplace(accept, port);
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end) << line.sidecar().Output();
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  ASSERT_THAT(receiver->requests(), SizeIs(AnyOf(1, 2)));  // the last pause may overlap
  EXPECT_EQ(ParseJson(receiver->requests()[0].body).value()["result"]["ok"], true);
  EXPECT_EQ(Runs(line, id), 1);
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P7_AnEndOutlivesAnOutageOfRedisAndOfTheSidecar) {
  Line line;
  line.executor("e0").Freeze();
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForStarted(id));
  line.server().Kill();
  line.executor("e0").process().Signal(SIGCONT);
  ASSERT_TRUE(line.sidecar().WaitForOutput(absl::StrCat("task ", id, " succeeded")));
  Kill(line);
  line.server().Start();
  line.ObserveAgain();
  line.StartSidecar();
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end) << line.sidecar().Output();
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  EXPECT_EQ(Runs(line, id), 1);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P14_WhatIsGivenBackIsNotRunAgain) {
  Line line({.sidecar_env = {{"DRAIN_TIMEOUT_SEC", "0"}}, .executor_env = ScriptedRank()});
  std::vector<std::string> ids = {
      line.Dispatch({{"taskType", "inference"}, {"script", {"sleep 60000", "finish"}}})};
  for (int i = 0; i < 2; ++i) ids.push_back(line.Dispatch(kEcho));
  ASSERT_TRUE(WaitForJournal(line, 3));
  line.sidecar().process().Signal(SIGTERM);
  const auto status = line.sidecar().process().Wait(absl::Seconds(20));
  ASSERT_TRUE(status) << line.sidecar().Output();
  EXPECT_TRUE(status->ok()) << status->ToString();
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("is given back"));
  RestartUntilIdle(line);
  EXPECT_EQ(ProveRecovery(line), "");
  EXPECT_THAT(EventsOf(line, ids[0], "TASK_STARTED"), SizeIs(1));
  for (const std::string& id : ids) EXPECT_THAT(Ends(line, id), IsEmpty());
  EXPECT_THAT(EventsOf(line, ids[1], "TASK_STARTED"), IsEmpty());
}

TEST_F(Promises, P14_WithoutRedisNothingIsGivenBackAndTheNextLifeGoesOn) {
  Line line({.sidecar_env = {{"DRAIN_TIMEOUT_SEC", "0"}}});
  line.executor("e0").Freeze();
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForStarted(id));
  line.server().Kill();
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.sidecar().WaitForOutput("is given back"));
  line.executor("e0").process().Signal(SIGCONT);
  ASSERT_TRUE(line.sidecar().process().Wait(absl::Seconds(30))) << line.sidecar().Output();
  line.server().Start();
  line.ObserveAgain();
  line.StartSidecar();
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end) << line.sidecar().Output();
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(ProveRecovery(line), "");
}

// UNREGISTER makes the orchestrator run again what it believes to be running.
TEST_F(Promises, P14_UnregisterDoesNotOvertakeAnEndThatNobodyHasReceived) {
  Line line({.sidecar_env = {{"TERMINAL_EVENT_FLOOR_MS", "0"}}});
  line.StopObserving();
  const std::string id = line.Dispatch(kEcho);
  // Tried, and in a pause that is longer than the end of a worker with nothing to tell.
  ASSERT_TRUE(WaitForMetric(line, "flowmesh_terminal_event_retries_total", 3));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w"));
  line.ObserveAgain();
  ASSERT_TRUE(line.events().WaitFor([](const Json& e) { return e["type"] == "UNREGISTER"; }))
      << line.sidecar().Output();
  const auto told = line.events().Timed(
      [](const Json& e) { return e["type"] == "TASK_SUCCEEDED" || e["type"] == "UNREGISTER"; });
  ASSERT_THAT(told, SizeIs(2)) << line.sidecar().Output();
  EXPECT_EQ(told[0].second["task_id"], id);
  EXPECT_GE(told[1].first - told[0].first, absl::Milliseconds(900));
  ASSERT_NO_FATAL_FAILURE(ExpectEndsWell(line, absl::Seconds(10)));
  EXPECT_EQ(line.redis().Command({"EXISTS", "worker:w"}), 0);
  RestartUntilIdle(line);
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P14_AnEndThatNobodyReceivesIsLeftToTheNextLife) {
  Line line({.sidecar_env = {{"DRAIN_TIMEOUT_SEC", "1"}}});
  line.StopObserving();
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(WaitForMetric(line, "flowmesh_terminal_events_pending", 1));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_NO_FATAL_FAILURE(ExpectEndsWell(line, absl::Seconds(8)));
  // The orchestrator's watchdog finds the task, should there be no next life.
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  line.ObserveAgain();
  line.StartSidecar();
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end) << line.sidecar().Output();
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  EXPECT_EQ(Runs(line, id), 1);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P14_ADrainBeforeRedisIsThereWaitsForNothing) {
  Line line;
  line.executor("e0").Freeze();
  const std::string id = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForStarted(id));
  line.server().Kill();
  line.executor("e0").process().Signal(SIGCONT);
  ASSERT_TRUE(WaitForMetric(line, "flowmesh_terminal_events_pending", 1));
  Kill(line);
  line.StartSidecar();
  ASSERT_TRUE(line.sidecar().WaitForOutput("its end is told")) << line.sidecar().Output();
  ASSERT_TRUE(line.sidecar().WaitForOutput("listens on"));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_NO_FATAL_FAILURE(ExpectEndsWell(line, absl::Seconds(8)));
  line.server().Start();
  line.ObserveAgain();
  line.StartSidecar();
  EXPECT_TRUE(line.events().WaitForTerminal(id)) << line.sidecar().Output();
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P4_ALongTaskGoesOnWhileTheSidecarIsAway) {
  Line line({.executor_env = {{"EXECUTOR_RANK_BIN", absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"),
                                                                 "/../tests/scripted_rank")}}});
  const std::string running =
      line.Dispatch({{"taskType", "inference"}, {"script", {"log at it", "sleep 3000", "finish"}}});
  const std::string queued = line.Dispatch(kEcho);
  const auto log = [&] {
    return ReadFile(line.results() / running / "logs/task.log").value_or("");
  };
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(log(), "at it"); }));
  ASSERT_TRUE(WaitForJournal(line, 2));
  Kill(line);
  RestartUntilIdle(line);
  for (const std::string& id : {running, queued}) {
    EXPECT_TRUE(line.events().WaitForTerminal(id));
    EXPECT_THAT(Ends(line, id), SizeIs(1));
  }
  EXPECT_EQ(line.ResultFile(running)["tasks"], 1);
  EXPECT_EQ(log().find("at it"), log().rfind("at it"));  // one run
  EXPECT_EQ(ProveRecovery(line), "");
}

TEST_F(Promises, P4_AnOrchestratorThatDoesNotAnswerHoldsTheReplayUpOnce) {
  std::atomic<bool> over{false};
  const TestHttpServer orchestrator([&](const httplib::Request&, httplib::Response&) {
    Eventually([&] { return over.load(); }, absl::Seconds(60));
  });
  Line line({.sidecar_env = {{"ORCHESTRATOR_BASE_URL", orchestrator.url()}}});
  const auto leave_behind = [&](const std::vector<std::string>& ids) {
    line.executor("e0").process().Signal(SIGKILL);
    ASSERT_TRUE(line.WaitForStatus("STARTING", "w"));
    for (const std::string& id : ids) Publish(line, Line::Envelope(id, kEcho, "w"));
    ASSERT_TRUE(WaitForJournal(line, static_cast<int>(ids.size())));
    Kill(line);
    line.StartExecutor("e0");
    line.StartSidecar();
  };
  const std::vector<std::string> ids = {"a", "b", "c"};
  leave_behind(ids);
  for (const std::string& id : ids) EXPECT_TRUE(line.events().WaitForTerminal(id)) << id;
  EXPECT_THAT(orchestrator.requests(), SizeIs(1));
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  // Nor does it hold the end up.
  leave_behind({"d"});
  ASSERT_TRUE(Eventually([&] { return orchestrator.requests().size() == 2; }));
  line.sidecar().process().Signal(SIGTERM);
  const auto status = line.sidecar().process().Wait(absl::Seconds(4));
  over = true;
  ASSERT_TRUE(status) << line.sidecar().Output();
  EXPECT_TRUE(status->ok()) << status->ToString();
  EXPECT_THAT(EventsOf(line, "d", "TASK_STARTED"), IsEmpty());
}

TEST_F(Promises, P4_ATaskThatTheOrchestratorHasGivenAwayIsDropped) {
  const TestHttpServer orchestrator([](const httplib::Request& request, httplib::Response& reply) {
    const bool done = absl::EndsWith(request.path, "/done");
    const bool gone = absl::EndsWith(request.path, "/gone");
    reply.set_content(DumpJson({{"status", done ? "DONE" : "DISPATCHED"},
                                {"assigned_worker", gone ? "another" : "w"}}),
                      "application/json");
  });
  Line line({.sidecar_env = {{"ORCHESTRATOR_BASE_URL", orchestrator.url()},
                             {"ORCHESTRATOR_TOKEN", "its-token"}}});
  line.executor("e0").process().Signal(SIGKILL);
  ASSERT_TRUE(line.WaitForStatus("STARTING", "w"));
  for (const char* id : {"done", "gone", "ours"}) Publish(line, Line::Envelope(id, kEcho, "w"));
  ASSERT_TRUE(WaitForJournal(line, 3));
  Kill(line);
  line.StartExecutor("e0");
  RestartUntilIdle(line);
  EXPECT_TRUE(line.events().WaitForTerminal("ours"));
  EXPECT_THAT(Ends(line, "ours"), SizeIs(1));
  EXPECT_THAT(Ends(line, "done"), IsEmpty());
  EXPECT_THAT(Ends(line, "gone"), IsEmpty());
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("the orchestrator's record says DONE"));
  EXPECT_THAT(line.sidecar().Output(), HasSubstr("has given it to worker another"));
  for (const httplib::Request& request : orchestrator.requests()) {
    EXPECT_EQ(request.get_header_value("Authorization"), "Bearer its-token");
  }
  EXPECT_EQ(ProveRecovery(line), "");
}

}  // namespace
}  // namespace flowmesh::testing
