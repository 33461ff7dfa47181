#include "tests/chaos/soak.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "sidecar/journal/journal.h"
#include "tests/chaos/gate.h"
#include "tests/chaos/soak_observer.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

constexpr absl::Duration kBeat = absl::Seconds(1);  // HEARTBEAT_INTERVAL_SEC
constexpr size_t kInFlight = 6;                     // per worker; its queue is used, too
// What is on its way when the other side goes deaf is missed like what comes after.
constexpr absl::Duration kOnTheWay = absl::Milliseconds(500);
constexpr absl::Duration kPatience = absl::Seconds(40);  // for one state after a fault

absl::Duration Now() { return Clock::Real().Monotonic(); }

std::string TaskId(size_t number) { return absl::StrFormat("t%05d", number); }

class Soak {
 public:
  explicit Soak(const SoakPlan& plan);
  SoakReport Run();

 private:
  LineOptions Options();
  Json SpecOf(const SoakTask& task) const;
  Json EnvelopeOf(const std::string& id, const SoakTask& task, const std::string& worker) const;

  bool PublishOne();
  // False when the workers stand still.
  bool PublishUntil(size_t number);
  void Hold(absl::Duration duration, bool publish);
  void Strike(const SoakFault& fault);
  void StrikeRedis(const SoakFault& fault);
  void StrikeReceiver(const SoakFault& fault);
  void KillRedis();
  void RestartRedis();
  void KillSidecar();
  void KillExecutor(const SoakFault& fault);
  // Waits until the sidecar hears again.
  void EndDeaf();
  // Publishes fresh tasks for `worker` until one of them gets as far as `ended` says.
  bool Probe(const std::string& worker, bool ended);
  // What the journal of a sidecar that is dead has accepted.
  void ReadJournal();
  void Settle();

  const SoakPlan plan_;
  SoakObserver observer_{kBeat, kOnTheWay};
  std::optional<Gate> redis_gate_, receiver_gate_;
  std::optional<TestHttpServer> receiver_;
  std::string receiver_url_;
  size_t next_ = 0;  // task of the plan
  size_t probes_ = 0;
  size_t executor_kills_ = 0;
  std::optional<Line> line_;  // last: it calls back into the above
};

Soak::Soak(const SoakPlan& plan) : plan_(plan) {
  receiver_.emplace([this](const httplib::Request& request, httplib::Response& reply) {
    observer_.OnRequest(request, reply);
  });
  const std::string url = receiver_->url();
  receiver_gate_.emplace(
      Endpoint{.host = "127.0.0.1", .port = std::stoi(url.substr(url.rfind(':') + 1))});
  receiver_url_ = absl::StrCat("http://", receiver_gate_->endpoint().Target(), "/api/v1/results");
  line_.emplace(Options());
}

LineOptions Soak::Options() {
  LineOptions options;
  options.executors = {"e0", "e1"};
  options.sidecar_env = {{"HEARTBEAT_INTERVAL_SEC", absl::StrCat(absl::ToInt64Seconds(kBeat))},
                         {"LOG_LEVEL", "INFO"}};
  options.executor_env = {{"EXECUTOR_RANK_BIN", absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"),
                                                             "/../tests/scripted_rank")},
                          {"LOG_LEVEL", "INFO"}};
  options.sidecar_redis = [this](RedisServer& server) {
    if (!redis_gate_) redis_gate_.emplace(Endpoint{.host = "127.0.0.1", .port = server.port()});
    return absl::StrCat("redis://", redis_gate_->endpoint().Target(), "/0");
  };
  options.on_event = [this](const Json& event) { observer_.OnEvent(event); };
  return options;
}

Json Soak::SpecOf(const SoakTask& task) const {
  Json spec = {{"taskType", task.kind == SoakTask::Kind::kEcho ? "echo" : "inference"},
               {"data", {{"type", "list"}, {"items", {"are you there"}}}}};
  const Json sleep = absl::StrCat("sleep ", task.sleep_ms);
  switch (task.kind) {
    case SoakTask::Kind::kEcho:
      break;
    case SoakTask::Kind::kSleep:
    case SoakTask::Kind::kMerged:
      spec["script"] = {"log run", sleep, "finish"};
      break;
    case SoakTask::Kind::kFail:
      spec["script"] = {"log run", sleep, "fail as it was told to"};
      break;
    case SoakTask::Kind::kCrash:
      spec["script"] = {"log run", sleep, absl::StrCat("crash ", task.signal)};
      break;
    case SoakTask::Kind::kExit:
      spec["script"] = {"log run", sleep, "exit 0"};
      break;
  }
  if (task.http) spec["output"] = {{"destination", {{"type", "http"}, {"url", receiver_url_}}}};
  return spec;
}

Json Soak::EnvelopeOf(const std::string& id, const SoakTask& task,
                      const std::string& worker) const {
  Json envelope = Line::Envelope(id, SpecOf(task), worker);
  if (task.kind != SoakTask::Kind::kMerged) return envelope;
  for (int child = 0; child < 2; ++child) {
    envelope["merged_children"].push_back(
        {{"task_id", SoakChildId(id, child)}, {"spec", envelope["task"]["spec"]}});
  }
  return envelope;
}

SoakReport Soak::Run() {
  const absl::Duration began = Now();
  bool runs = true;
  for (auto fault = plan_.faults.begin(); runs && fault != plan_.faults.end(); ++fault) {
    runs = PublishUntil(static_cast<size_t>(fault->after_tasks));
    if (runs) Strike(*fault);
  }
  if (runs) PublishUntil(plan_.tasks.size());
  Settle();
  observer_.CheckFiles(line_->results(), executor_kills_);
  SoakReport report = observer_.Report();
  report.took = Now() - began;
  return report;
}

// The next task of the plan to the worker that has least; false when both have enough.
bool Soak::PublishOne() {
  if (next_ >= plan_.tasks.size()) return false;
  const std::string id = TaskId(next_);
  const SoakTask& task = plan_.tasks[next_];
  const std::string worker =
      observer_.in_flight("w.e1") < observer_.in_flight("w.e0") ? "w.e1" : "w.e0";
  if (observer_.in_flight(worker) >= kInFlight) return false;
  ++next_;
  observer_.Published(id, worker, task);
  line_->redis().Publish("tasks", EnvelopeOf(id, task, worker));
  return true;
}

bool Soak::PublishUntil(size_t number) {
  while (next_ < number) {
    if (Eventually([&] { return PublishOne(); }, kPatience)) continue;
    observer_.Violate(absl::StrCat("both workers stand still before ", TaskId(next_)));
    return false;
  }
  return true;
}

void Soak::Hold(absl::Duration duration, bool publish) {
  const absl::Duration until = Now() + duration;
  while (Now() < until) {
    if (!publish || !PublishOne()) absl::SleepFor(absl::Milliseconds(2));
  }
}

void Soak::EndDeaf() {
  if (!Probe("w.e0", /*ended=*/false)) observer_.Violate("the sidecar hears nothing any more");
  observer_.EndDeaf();
}

bool Soak::Probe(const std::string& worker, bool ended) {
  const size_t first = probes_;
  absl::Duration next = Now();
  return Eventually(
      [&] {
        if (Now() >= next) {
          const std::string id = absl::StrCat("probe-", probes_++);
          observer_.Published(id, worker, std::nullopt);
          line_->redis().Publish("tasks", EnvelopeOf(id, SoakTask(), worker));
          next = Now() + absl::Milliseconds(200);
        }
        for (size_t i = first; i < probes_; ++i) {
          const std::string id = absl::StrCat("probe-", i);
          if (ended ? observer_.Ended(id) : observer_.Heard(id)) return true;
        }
        return false;
      },
      kPatience);
}

void Soak::Strike(const SoakFault& fault) {
  using Kind = SoakFault::Kind;
  switch (fault.kind) {
    case Kind::kRedisFlushed:
      // Registering again brings a beat of its own; nobody is deaf meanwhile.
      line_->redis().Command({"FLUSHDB"});
      return;
    case Kind::kRedisDelayed:
      observer_.Disturb(true);
      redis_gate_->Delay(fault.delay);
      Hold(fault.hold, /*publish=*/true);
      redis_gate_->Pass();
      return observer_.Disturb(false);
    case Kind::kExecutorStopped:
    case Kind::kExecutorKilled:
      return KillExecutor(fault);
    case Kind::kReceiverDropped:
    case Kind::kReceiverRefused:
    case Kind::kReceiverCut:
    case Kind::kReceiverBlackholed:
      return StrikeReceiver(fault);
    default:
      break;
  }
  observer_.BeginDeaf(std::string(ToText(fault.kind)));
  switch (fault.kind) {
    case Kind::kSidecarKilled:
      KillSidecar();
      Hold(fault.hold, /*publish=*/true);
      line_->StartSidecar();
      break;
    case Kind::kSidecarStopped:
      line_->sidecar().process().Signal(SIGSTOP);
      Hold(fault.hold, /*publish=*/true);
      line_->sidecar().process().Signal(SIGCONT);
      observer_.ForgetBeats();
      break;
    case Kind::kSidecarAndExecutorKilled:
      KillSidecar();
      KillExecutor(fault);
      line_->StartSidecar();
      break;
    case Kind::kRedisAndSidecarKilled:
      KillRedis();
      KillSidecar();
      Hold(fault.hold, /*publish=*/false);
      line_->StartSidecar();
      RestartRedis();
      break;
    default:
      StrikeRedis(fault);
  }
  EndDeaf();
}

void Soak::StrikeRedis(const SoakFault& fault) {
  using Kind = SoakFault::Kind;
  Gate& gate = *redis_gate_;
  bool publish = true;
  switch (fault.kind) {
    case Kind::kRedisKilled:
      KillRedis();
      Hold(fault.hold, /*publish=*/false);
      return RestartRedis();
    case Kind::kRedisStopped:
      line_->server().Signal(SIGSTOP);
      Hold(fault.hold, /*publish=*/false);
      return line_->server().Signal(SIGCONT);
    case Kind::kOrchestratorAway:
      receiver_gate_->Refuse();
      line_->StopObserving();
      publish = false;
      break;
    case Kind::kRedisDropped:
      gate.Drop();
      break;
    case Kind::kRedisRefused:
      gate.Refuse();
      break;
    case Kind::kRedisCut:
      gate.CutAfter(fault.bytes);
      break;
    default:
      gate.Blackhole();
  }
  Hold(fault.hold, publish);
  gate.Pass();
  receiver_gate_->Pass();
  if (fault.kind == Kind::kOrchestratorAway) line_->ObserveAgain();
}

void Soak::StrikeReceiver(const SoakFault& fault) {
  Gate& gate = *receiver_gate_;
  if (fault.kind == SoakFault::Kind::kReceiverDropped) return gate.Drop();
  if (fault.kind == SoakFault::Kind::kReceiverRefused) gate.Refuse();
  if (fault.kind == SoakFault::Kind::kReceiverCut) gate.CutAfter(fault.bytes);
  if (fault.kind == SoakFault::Kind::kReceiverBlackholed) gate.Blackhole();
  Hold(fault.hold, /*publish=*/true);
  gate.Pass();
}

// A server that dies between passing an event on and answering its PUBLISH, or the other way round,
// could lose an event whatever the sidecar does. So the sidecar is cut off first, and the server
// dies when it has passed on what it has taken: then it is a matter of the sidecar's doubts only.
void Soak::KillRedis() {
  redis_gate_->Blackhole();
  for (int round = 0; round < 2; ++round) line_->redis().Command({"PING"});
  line_->StopObserving();
  line_->server().Kill();
  redis_gate_->Pass();
}

void Soak::RestartRedis() {
  line_->server().Start();
  line_->ObserveAgain();
}

void Soak::KillSidecar() {
  line_->sidecar().process().Signal(SIGKILL);
  EXPECT_TRUE(line_->sidecar().process().Wait(absl::Seconds(10)));
  ReadJournal();
  observer_.ForgetBeats();
}

void Soak::KillExecutor(const SoakFault& fault) {
  const std::string name = absl::StrCat("e", fault.executor);
  const bool kill = fault.kind != SoakFault::Kind::kExecutorStopped;
  if (kill) ++executor_kills_;
  line_->executor(name).process().Signal(kill ? SIGKILL : SIGSTOP);
  Hold(fault.hold, /*publish=*/true);
  if (kill) {
    line_->StartExecutor(name);
  } else {
    line_->executor(name).process().Signal(SIGCONT);
  }
}

void Soak::ReadJournal() {
  // A copy: the recovery of the file is the next sidecar's.
  const TempDir copy;
  for (const char* file : {"journal.db", "journal.db-wal"}) {
    std::error_code none;
    std::filesystem::copy_file(line_->dir() / "state/w" / file, copy / file, none);
  }
  const auto journal =
      sidecar::Journal::Open(copy / "journal.db", sidecar::JournalOptions(), Clock::Real());
  const auto tasks = journal.ok() ? (*journal)->OpenTasks() : journal.status();
  if (!tasks.ok())
    return observer_.Violate(absl::StrCat("the journal: ", tasks.status().message()));
  for (const sidecar::JournalEntry& entry : *tasks) observer_.Accepted(entry.task.task_id);
}

// --- The end -------------------------------------------------------------------------------------

void Soak::Settle() {
  const bool ended = Eventually([&] { return observer_.AllEnded(); }, kPatience);
  HttpRequest metrics;
  metrics.url = line_->metrics_url() + "/metrics";
  std::string state;
  const bool idle = Eventually(
      [&] {
        const absl::StatusOr<HttpResponse> response = HttpClient().Send(metrics);
        state = response.ok() ? response->body : Message(response.status());
        return absl::StrContains(state, "\nflowmesh_journal_open_tasks 0\n") &&
               line_->redis().HashField("worker:w.e0", "status") == "IDLE" &&
               line_->redis().HashField("worker:w.e1", "status") == "IDLE";
      },
      kPatience);
  const bool recovered = Probe("w.e0", /*ended=*/true) && Probe("w.e1", /*ended=*/true);
  // What was lost, the history says better.
  if (!idle) observer_.Violate(absl::StrCat("at the end not all is idle:\n", state));
  if (!recovered) observer_.Violate("at the end no fresh task succeeds");
  if (!ended) observer_.Violate("at the end some tasks have no end");
}

}  // namespace

std::string SoakReport::ToString() const {
  return absl::StrFormat(
      "%d tasks in %.0f s: %d succeeded, %d failed (%d with their executor), %d missed while deaf; "
      "%d ends and %d results came again; %d heartbeats, %d of them lost: 9 of 10 within %.1f %%, "
      "all within %.1f %% of the interval",
      published, absl::ToDoubleSeconds(took), succeeded, failed, lost_executors, missed, repeated,
      sent_again, beats, lost_beats, 100 * jitter, 100 * worst_jitter);
}

SoakReport RunSoak(const SoakPlan& plan) { return Soak(plan).Run(); }

}  // namespace flowmesh::testing
