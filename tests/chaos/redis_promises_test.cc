// What the worker promises about Redis (PROMISES.md), on the whole line: real redis-server and
// sentinel, sidecar and executor as processes. Each test ends with a fresh task that succeeds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/strings.h"
#include "tests/chaos/beats.h"
#include "tests/chaos/gate.h"
#include "tests/chaos/history.h"
#include "tests/integration/line.h"
#include "tests/integration/sentinel.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};
// Back-off of up to 5 s, and the way up after it.
constexpr absl::Duration kRecovery = absl::Seconds(15);

absl::Duration Now() { return Clock::Real().Monotonic(); }

LineOptions Fast() { return {.sidecar_env = {{"HEARTBEAT_INTERVAL_SEC", "1"}}}; }

// A line whose sidecar reaches Redis through a gate.
class GatedLine {
 public:
  explicit GatedLine(LineOptions options = Fast()) {
    options.sidecar_redis = [this](RedisServer& server) {
      if (!gate_) gate_.emplace(Endpoint{.host = "127.0.0.1", .port = server.port()});
      return absl::StrCat("redis://", gate_->endpoint().Target(), "/0");
    };
    line_.emplace(std::move(options));
  }
  Gate& gate() { return *gate_; }
  Line& operator*() { return *line_; }
  Line* operator->() { return &*line_; }

 private:
  std::optional<Gate> gate_;
  std::optional<Line> line_;
};

// The sample of a metric with its labels, if it has any.
double Metric(Line& line, const std::string& name) {
  HttpRequest request;
  request.url = line.metrics_url() + "/metrics";
  const absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
  if (!response.ok()) return -1;
  const size_t at = response->body.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::atof(response->body.c_str() + at + name.size() + 2);
}

// Waits until the sidecar itself says whether it hears.
bool WaitForHearing(Line& line, bool hears, absl::Duration timeout = kRecovery) {
  return Eventually([&] { return Metric(line, "flowmesh_subscription_alive") == (hears ? 1 : 0); },
                    timeout);
}

// A worker that is IDLE and eligible, and a task that proves it.
void ProveRecovery(Line& line, absl::Duration timeout = kRecovery) {
  ASSERT_TRUE(WaitForHearing(line, true, timeout));
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w", timeout));
  EXPECT_TRUE(Eventually([&] {
    return line.redis().Command({"SISMEMBER", "workers:ids", "w"}) == 1 &&
           line.redis().Command({"TTL", "worker:w:hb"}) > 100;
  }));
  const std::string id = line.Dispatch(kEcho);
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
}

// --- P1 ------------------------------------------------------------------------------------------

// Looks at status and subscription in one transaction, again and again.
class Sampler {
 public:
  explicit Sampler(int port) : thread_([this, port] { Look(port); }) {}
  ~Sampler() {
    stop_ = true;
    thread_.join();
  }
  int idle() const { return idle_; }
  int idle_and_deaf() const { return idle_and_deaf_; }

 private:
  void Look(int port) {
    RedisPeer peer(port);
    while (!stop_) {
      peer.Command({"MULTI"});
      peer.Command({"HGET", "worker:w", "status"});
      peer.Command({"PUBSUB", "NUMSUB", "tasks"});
      const Json answers = peer.Command({"EXEC"});
      if (answers[0] != "IDLE") continue;
      ++idle_;
      if (answers[1][1] == 0) ++idle_and_deaf_;
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<int> idle_{0}, idle_and_deaf_{0};
  std::thread thread_;
};

TEST(Promises, P1_SubscribedBeforeAvailable) {
  Line line(Fast());
  const Sampler sampler(line.server().port());
  const uint32_t seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int life = 0; life < 5; ++life) {
    // At any moment between its first steps and its full work.
    const auto moment = absl::Milliseconds(std::uniform_int_distribution<int>(0, 120)(random));
    const absl::Duration deadline = Now() + moment;
    Eventually([&] { return Now() >= deadline; });
    line.sidecar().process().Signal(SIGTERM);
    const auto exit = line.sidecar().process().Wait(kRecovery);
    ASSERT_TRUE(exit);
    EXPECT_EQ(line.redis().Command({"EXISTS", "worker:w"}), 0);
    line.StartSidecar();
  }
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_TRUE(Eventually([&] { return sampler.idle() > 100; }));
  EXPECT_EQ(sampler.idle_and_deaf(), 0);
  ProveRecovery(line);
}

// --- P2 ------------------------------------------------------------------------------------------

TEST(Promises, P2_DeafMeansNotAvailable) {
  GatedLine line;
  line.gate().Only("SUBSCRIBE");
  ASSERT_EQ(line.gate().connections(), 1u);
  line.gate().Blackhole();
  const absl::Duration start = Now();
  // Nobody was told of it: it must find out, within its bound of 2 s and a beat.
  ASSERT_TRUE(line->WaitForStatus("STARTING", "w", absl::Seconds(10)));
  EXPECT_LT(Now() - start, absl::Seconds(5));
  EXPECT_EQ(Metric(*line, "flowmesh_subscription_alive"), 0);
  // Commands go on: it beats, and says there too that it is not available.
  EXPECT_TRUE(line->events().WaitFor(
      [](const Json& e) { return e["type"] == "STATUS" && e["status"] == "STARTING"; }));
  EXPECT_EQ(line->redis().HashField("worker:w", "status"), "STARTING");
  line.gate().Pass();
  ProveRecovery(*line);
}

TEST(Promises, P2_DeafInOneDirectionToo) {
  GatedLine line;
  line.gate().Only("SUBSCRIBE");
  line.gate().Blackhole(Gate::Direction::kBackward);
  ASSERT_TRUE(line->WaitForStatus("STARTING", "w", absl::Seconds(10)));
  line.gate().Pass();
  ProveRecovery(*line);
}

// --- P3 ------------------------------------------------------------------------------------------

// Deaf from now until the sidecar hears again; the time goes into the test's record.
void MeasureDeafness(Line& line, const std::string& fault, absl::Duration start) {
  ASSERT_TRUE(WaitForHearing(line, true)) << fault;
  ::testing::Test::RecordProperty("deaf_ms_" + fault,
                                  std::to_string(absl::ToInt64Milliseconds(Now() - start)));
}

TEST(Promises, P3_ComesBackAfterDroppedConnections) {
  Line line(Fast());
  for (const std::string type : {"pubsub", "normal"}) {
    const absl::Duration start = Now();
    EXPECT_GE(line.redis().Command({"CLIENT", "KILL", "TYPE", type, "SKIPME", "yes"}), 1);
    if (type == "pubsub") line.ObserveAgain();  // the recorder was hit as well
    ASSERT_NO_FATAL_FAILURE(MeasureDeafness(line, type, start));
    // The first try comes after at most 0.1 s.
    EXPECT_LT(Now() - start, absl::Seconds(3));
    ProveRecovery(line);
  }
  EXPECT_EQ(Metric(line, "flowmesh_redis_reconnects_total"), 1);
}

TEST(Promises, P3_ComesBackAfterACrashOfRedis) {
  Line line(Fast());
  const std::string started_at = line.redis().HashField("worker:w", "started_at");
  const absl::Duration start = Now();
  line.server().Kill();
  ASSERT_TRUE(WaitForHearing(line, false));
  line.server().Start();
  line.ObserveAgain();
  ASSERT_NO_FATAL_FAILURE(MeasureDeafness(line, "kill", start));
  ProveRecovery(line);
  EXPECT_EQ(line.redis().HashField("worker:w", "started_at"), started_at);
}

TEST(Promises, P3_ComesBackAfterRedisStoodStill) {
  Line line(Fast());
  const absl::Duration start = Now();
  line.server().Signal(SIGSTOP);
  ASSERT_TRUE(WaitForHearing(line, false));
  line.server().Signal(SIGCONT);
  ASSERT_NO_FATAL_FAILURE(MeasureDeafness(line, "stop", start));
  ProveRecovery(line);
}

TEST(Promises, P3_RegistersAgainAfterFlushdb) {
  Line line(Fast());
  line.redis().Command({"FLUSHDB"});
  // Within 5 s, although nothing tells it; and the subscription was never lost.
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w", absl::Seconds(8)));
  EXPECT_EQ(Metric(line, "flowmesh_subscription_alive"), 1);
  ProveRecovery(line);
}

TEST(Promises, P3_ComesBackAfterARotatedPassword) {
  const TempDir dir;
  const std::string file = dir / "password";
  ASSERT_TRUE(WriteFileAtomically(file, "first-canary\n").ok());
  LineOptions options = Fast();
  options.redis_setup = {"ACL", "SETUSER", "worker", "on", ">first-canary", "~*", "&*", "+@all"};
  options.redis_login = "worker@";
  options.sidecar_env["REDIS_PASSWORD_FILE"] = file;
  Line line(options);
  const absl::Duration start = Now();
  line.redis().Command({"ACL", "SETUSER", "worker", "resetpass", ">second-canary"});
  EXPECT_EQ(line.redis().Command({"CLIENT", "KILL", "USER", "worker"}), 2);
  ASSERT_TRUE(line.sidecar().WaitForOutput("WRONGPASS"));
  ASSERT_TRUE(WriteFileAtomically(file, "second-canary\n").ok());
  ASSERT_NO_FATAL_FAILURE(MeasureDeafness(line, "password", start));
  ProveRecovery(line);
  EXPECT_THAT(line.sidecar().Output(), ::testing::Not(HasSubstr("canary")));
}

TEST(Promises, P3_FollowsAFailover) {
  std::optional<Sentinel> sentinel;
  std::optional<RedisServer> replica;
  LineOptions options = Fast();
  options.sidecar_redis = [&](RedisServer& server) {
    if (!sentinel) {
      replica.emplace(
          std::vector<std::string>{"--replicaof", "127.0.0.1", absl::StrCat(server.port())});
      sentinel.emplace(server.port());
      EXPECT_TRUE(sentinel->WaitForReplicas(1));
    }
    return absl::StrCat("redis+sentinel://127.0.0.1:", sentinel->port(), "/mymaster/0");
  };
  Line line(options);
  const absl::Duration start = Now();
  line.server().Kill();
  ASSERT_TRUE(sentinel->WaitForAnotherMasterThan(line.server().port()));
  line.ObserveAgain(replica->port());
  ASSERT_NO_FATAL_FAILURE(MeasureDeafness(line, "failover", start));
  ProveRecovery(line);
}

// Random faults; what is published while the sidecar hears must come to its end.
TEST(Promises, P3_NothingIsMissedOutsideDeafWindows) {
  GatedLine line;
  History history;
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  std::vector<std::string> ids;
  const auto publish = [&] {
    const std::string id = RandomUuid();
    ids.push_back(id);
    history.Add(Step::kPublished, id);
    line->redis().Publish("tasks", Line::Envelope(id, kEcho, "w"));
  };
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 20; ++i) publish();
    // What is still on its way when the fault comes is lost, and no worker could help it.
    ASSERT_TRUE(line->events().WaitForTerminal(ids.back()));
    history.BeginDeaf(absl::StrCat("round ", round));
    switch (std::uniform_int_distribution<int>(0, 2)(random)) {
      case 0:
        line.gate().Drop();
        break;
      case 1:
        line.gate().CutAfter(std::uniform_int_distribution<int>(1, 4000)(random));
        break;
      default:
        line.gate().Corrupt(Gate::Direction::kBackward);
    }
    for (int i = 0; i < 5; ++i) publish();
    line.gate().Pass();
    ASSERT_TRUE(WaitForHearing(*line, true));
    // It may not have noticed yet: a message that it answers ends the window.
    ASSERT_TRUE(Eventually([&] {
      const std::string id = RandomUuid();
      line->redis().Publish("tasks", Line::Envelope(id, kEcho, "w"));
      return line->events().WaitForTerminal(id, absl::Milliseconds(500)).has_value();
    }));
    history.EndDeaf();
  }
  // What was begun comes to its end.
  const std::string last = line->Dispatch(kEcho);
  ASSERT_TRUE(line->events().WaitForTerminal(last));
  ASSERT_TRUE(line->WaitForStatus("IDLE", "w"));
  const std::set<std::string> ours(ids.begin(), ids.end());
  std::set<std::string> told;
  for (const Json& event : line->events().All()) {
    const std::optional<Step> step = StepOf(event);
    const std::string id = event.value("task_id", "");
    // An event whose answer was lost is sent again, byte for byte: that is one event.
    if (step && ours.count(id) > 0 && told.insert(DumpJson(event)).second) history.Add(*step, id);
  }
  EXPECT_EQ(history.Check(), absl::OkStatus());
  EXPECT_GE(history.Count(Step::kFinished), 120u);
  RecordProperty("seed", std::to_string(seed));
  ProveRecovery(*line);
}

// An error of the server is no word on who holds the id, nor on whether it is registered.
TEST(Promises, P3_ARefusedCheckIsNoVerdict) {
  LineOptions options = Fast();
  options.redis_setup = {"ACL", "SETUSER", "worker", "on", ">pw", "~*", "&*", "+@all"};
  options.redis_login = "worker:pw@";
  Line line(options);
  const auto is_registration = [](const Json& e) { return e["type"] == "REGISTER"; };
  const auto registrations = [&] { return line.events().All(is_registration).size(); };
  ASSERT_TRUE(line.events().WaitFor(is_registration));
  for (const std::string command : {"hget", "sismember"}) {
    line.redis().Command({"ACL", "SETUSER", "worker", "-" + command});
    ASSERT_TRUE(line.sidecar().WaitForOutput(absl::StrCat(
        "what Redis holds of it cannot be read: Redis: NOPERM this user has no permissions "
        "to run the '",
        command)))
        << line.sidecar().Output();
    line.redis().Command({"ACL", "SETUSER", "worker", "+" + command});
    ProveRecovery(line);
  }
  EXPECT_EQ(registrations(), 1u);
  EXPECT_FALSE(line.sidecar().process().Poll());
}

// A line whose task came to its end while Redis was away.
void EndATaskInAnOutage(GatedLine& line) {
  line->executor("e0").Freeze();
  ASSERT_TRUE(line->events().WaitForStarted(line->Dispatch(kEcho)));
  line.gate().Refuse();
  line->executor("e0").process().Signal(SIGCONT);
  ASSERT_TRUE(Eventually([&] { return Metric(*line, "flowmesh_terminal_events_pending") == 1; }));
}

TEST(Promises, P3_WaitsForRedisAtRest) {
  GatedLine line;
  ASSERT_NO_FATAL_FAILURE(EndATaskInAnOutage(line));
  EXPECT_LT(line->sidecar().CpuTimeIn(absl::Seconds(2)), absl::Milliseconds(300));
  line.gate().Pass();
  ProveRecovery(*line);
}

TEST(Promises, P3_RegistersThenTellsThenShowsItsStatus) {
  GatedLine line;
  ASSERT_NO_FATAL_FAILURE(EndATaskInAnOutage(line));
  line->redis().Command({"FLUSHDB"});
  line->ObserveAgain();
  line.gate().Pass();
  ASSERT_TRUE(line->events().WaitFor(
      [](const Json& e) { return e["type"] == "STATUS" && e["status"] == "IDLE"; }));
  std::vector<std::string> order;
  for (const Json& event : line->events().All()) {
    const std::string type = event["type"];
    // Before it hears, it may beat and say so.
    if (type == "HEARTBEAT" || (type == "STATUS" && event["status"] == "STARTING")) continue;
    order.push_back(type);
  }
  EXPECT_THAT(order, ::testing::ElementsAre("REGISTER", "TASK_SUCCEEDED", "STATUS"));
  ProveRecovery(*line);
}

// --- P8 ------------------------------------------------------------------------------------------

TEST(Promises, P8_BeatsUnderFullLoadAndWhileDraining) {
  LineOptions options = Fast();
  options.sidecar_env["HEARTBEAT_INTERVAL_SEC"] = "2";
  options.sidecar_env["DRAIN_TIMEOUT_SEC"] = "7";
  Line line(options);
  std::vector<Json> flood;
  for (int i = 0; i < 3000; ++i) flood.push_back(Line::Envelope(RandomUuid(), kEcho, "w"));
  line.redis().PublishAll("tasks", flood);
  const std::vector<absl::Duration> loaded = Beats(line, 4);
  ExpectSteady(loaded, absl::Seconds(2));
  EXPECT_GT(line.redis().Command({"TTL", "worker:w:hb"}), 110);
  ProveRecovery(line, absl::Seconds(30));
  // Its task has been told to be over, but may still stand in the status.
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));

  // An executor that stands still holds its task, and the drain, up.
  line.executor("e0").process().Signal(SIGSTOP);
  line.Dispatch(kEcho);
  ASSERT_TRUE(line.WaitForStatus("RUNNING", "w"));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w"));
  ExpectSteady(Beats(line, 3), absl::Seconds(2));
  EXPECT_EQ(line.redis().HashField("worker:w", "status"), "STOPPING");
  line.executor("e0").process().Signal(SIGCONT);
  const auto exit = line.sidecar().process().Wait(absl::Seconds(30));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString();
  line.StartSidecar();
  ProveRecovery(line);
}

TEST(Promises, P8_AFailedBeatIsRetried) {
  constexpr absl::Duration kInterval = absl::Seconds(9);
  GatedLine line({.sidecar_env = {{"HEARTBEAT_INTERVAL_SEC", "9"}}});
  const auto beats = [&] {
    return line->events().All([](const Json& e) { return e["type"] == "HEARTBEAT"; }).size();
  };
  ASSERT_TRUE(Eventually([&] { return beats() == 1; }));
  line.gate().Refuse();
  ASSERT_TRUE(Eventually(
      [&] { return Metric(*line, R"(flowmesh_heartbeats_total{outcome="failed"})") == 1; },
      kInterval + kRecovery));
  const absl::Duration failed = Now();
  line->redis().Command({"DEL", "worker:w:hb"});
  line.gate().Pass();
  EXPECT_TRUE(Eventually([&] { return beats() == 2; }, kRecovery));
  EXPECT_LT(Now() - failed, kInterval - absl::Seconds(1));  // it was not the next one's turn
  EXPECT_EQ(line->redis().Command({"EXISTS", "worker:w:hb"}), 1);
  ProveRecovery(*line);
}

// --- P9 ------------------------------------------------------------------------------------------

// The environment of another sidecar with the line's worker id and executor.
std::map<std::string, std::string> TwinOf(const Line& line) {
  return {{"REDIS_URL", line.redis_url()},
          {"WORKER_ID", "w"},
          {"HEARTBEAT_INTERVAL_SEC", "1"},
          {"STATE_DIR", line.dir() / "state2"},
          {"RESULTS_DIR", line.dir() / "results2"},
          {"EXECUTOR_ENDPOINTS", absl::StrCat("e0=unix:", (line.dir() / "e0.sock").string())},
          {"SIDECAR_LISTEN", absl::StrCat("unix:", (line.dir() / "sidecar2.sock").string())},
          {"METRICS_LISTEN", "off"}};
}

size_t CountOf(Line& line, const std::string& type) {
  return line.events().All([&](const Json& event) { return event["type"] == type; }).size();
}

// Beside another process with its id, and with an executor that stands still until it has noticed.
void ExpectStepsBack(Line& line) {
  ASSERT_TRUE(line.sidecar().WaitForOutput(
      "another process has taken the worker id w: this one steps back"));
  line.executor("e0").process().Signal(SIGCONT);
  const auto exit = line.sidecar().process().Wait(absl::Seconds(30));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 3) << exit->ToString();
}

TEST(Promises, P9_TheOlderOfTwoStepsBack) {
  Line line(Fast());
  const std::string first = line.redis().HashField("worker:w", "instance_id");
  // The executor stands still, so that the older one holds a task when the other comes.
  line.executor("e0").process().Signal(SIGSTOP);
  const std::string held = line.Dispatch(kEcho);
  ASSERT_TRUE(line.WaitForStatus("RUNNING", "w"));
  const Program second("flowmesh-sidecar", TwinOf(line), line.dir());
  ASSERT_NO_FATAL_FAILURE(ExpectStepsBack(line));
  // It left the keys to the other, and said nothing of its task.
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  EXPECT_NE(line.redis().HashField("worker:w", "instance_id"), first);
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  EXPECT_EQ(CountOf(line, "UNREGISTER"), 0u);
  const std::string fresh = line.Dispatch(kEcho);
  const auto end = line.events().WaitForTerminal(fresh);
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  EXPECT_FALSE(line.events().WaitForTerminal(held, absl::ZeroDuration()));
}

TEST(Promises, P9_ADrainingOneStepsBackToo) {
  LineOptions options = Fast();
  options.sidecar_env["DRAIN_TIMEOUT_SEC"] = "60";
  Line line(options);
  line.executor("e0").process().Signal(SIGSTOP);
  const std::string held = line.Dispatch(kEcho);
  ASSERT_TRUE(line.events().WaitForStarted(held));
  line.sidecar().process().Signal(SIGTERM);
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w"));
  const Program second("flowmesh-sidecar", TwinOf(line), line.dir());
  ASSERT_NO_FATAL_FAILURE(ExpectStepsBack(line));
  EXPECT_EQ(CountOf(line, "UNREGISTER"), 0u);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  const auto end = line.events().WaitForTerminal(line.Dispatch(kEcho));
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
  EXPECT_FALSE(line.events().WaitForTerminal(held, absl::ZeroDuration()));
}

// Too soon for a check by the clock: it looks before it takes the keys away.
TEST(Promises, P9_LooksBeforeItUnregisters) {
  Line line(Fast());
  line.redis().Command({"HSET", "worker:w", "instance_id", "another"});
  line.sidecar().process().Signal(SIGTERM);
  const auto exit = line.sidecar().process().Wait(absl::Seconds(30));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 3) << exit->ToString();
  EXPECT_EQ(line.redis().HashField("worker:w", "instance_id"), "another");
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 1);
  EXPECT_EQ(CountOf(line, "UNREGISTER"), 0u);
  // What an earlier life left behind is no twin.
  line.StartSidecar();
  ProveRecovery(line);
}

TEST(Promises, P9_SaysNothingWhenItsIdWasTakenInAnOutage) {
  GatedLine line;
  ASSERT_NO_FATAL_FAILURE(EndATaskInAnOutage(line));
  line->redis().Command({"HSET", "worker:w", "instance_id", "another"});
  const Json before = line->redis().Command({"HGETALL", "worker:w"});
  line->ObserveAgain();
  line.gate().Pass();
  const auto exit = line->sidecar().process().Wait(absl::Seconds(30));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 3) << exit->ToString();
  EXPECT_THAT(line->events().All(), ::testing::IsEmpty());
  EXPECT_EQ(line->redis().Command({"HGETALL", "worker:w"}), before);
  line->StartSidecar();
  ProveRecovery(*line);
}

}  // namespace
}  // namespace flowmesh::testing
