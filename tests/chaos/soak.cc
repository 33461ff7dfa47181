#include "tests/chaos/soak.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "sidecar/journal/journal.h"
#include "tests/chaos/gate.h"
#include "tests/chaos/history.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

constexpr absl::Duration kBeat = absl::Seconds(1);  // HEARTBEAT_INTERVAL_SEC
constexpr size_t kInFlight = 6;                     // per worker; its queue is used, too
// What is on its way when the other side goes deaf is missed like what comes after.
constexpr absl::Duration kOnTheWay = absl::Milliseconds(500);
constexpr absl::Duration kPatience = absl::Seconds(40);  // for one state after a fault
constexpr std::string_view kLostExecutor = "was lost while the task ran";

absl::Duration Now() { return Clock::Real().Monotonic(); }

std::string TaskId(size_t number) { return absl::StrFormat("t%05d", number); }

std::string ChildId(const std::string& id, int child) { return absl::StrCat(id, "-c", child); }

size_t CountOf(const std::string& text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

class Soak {
 public:
  explicit Soak(const SoakPlan& plan);
  SoakReport Run();

 private:
  struct Sent {
    std::optional<SoakTask> task;  // nothing: a probe
    std::string worker;
    bool heard = false;   // some sign of it came
    bool missed = false;  // it was sent into a deaf window without a sign
    std::string end;      // the terminal event
  };
  struct Beats {
    std::optional<absl::Duration> last;  // that came undisturbed from this life of the sidecar
    bool registering = false;            // a registration has a beat of its own, beside the others
  };

  LineOptions Options();
  Json SpecOf(const SoakTask& task) const;
  Json EnvelopeOf(const std::string& id, const SoakTask& task, const std::string& worker) const;

  // --- What is seen, from the threads of recorder and receiver
  // ------------------------------------
  void OnEvent(const Json& event);
  void OnTaskEvent(const Json& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnEnd(const std::string& id, Sent& sent, const Json& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnBeat(const std::string& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnRequest(const httplib::Request& request, httplib::Response& reply);
  // The first sign of a task: what anybody outside has seen of it was accepted before.
  void Hear(const std::string& id, Sent& sent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Violate(const std::string& what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // --- What is done, from Run
  // ---------------------------------------------------------------------
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
  void ForgetBeats();
  void KillExecutor(const SoakFault& fault);
  // From here on messages may be missed, and beats may be late.
  void BeginDeaf(SoakFault::Kind kind);
  // Waits until the sidecar hears again.
  void EndDeaf();
  // Publishes fresh tasks for `worker` until one of them gets as far as `ended` says.
  bool Probe(const std::string& worker, bool ended);
  // What the journal of a sidecar that is dead has accepted.
  void ReadJournal();
  void Settle();
  bool AllEnded();
  void CheckFiles();
  SoakReport Report(absl::Duration began);

  const SoakPlan plan_;
  History history_;
  std::optional<Gate> redis_gate_, receiver_gate_;
  std::optional<TestHttpServer> receiver_;
  std::string receiver_url_;

  absl::Mutex mutex_;
  std::map<std::string, Sent> sent_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> stored_ ABSL_GUARDED_BY(mutex_);  // body, by task or child
  std::map<std::string, size_t> in_flight_ ABSL_GUARDED_BY(mutex_);    // by worker
  std::map<std::string, Beats> beats_ ABSL_GUARDED_BY(mutex_);         // by worker
  bool undisturbed_ ABSL_GUARDED_BY(mutex_) = true;
  std::vector<absl::Duration> jitters_ ABSL_GUARDED_BY(mutex_);
  absl::Status violation_ ABSL_GUARDED_BY(mutex_);  // the first
  SoakReport report_ ABSL_GUARDED_BY(mutex_);

  size_t next_ = 0;  // task of the plan
  size_t probes_ = 0;
  size_t executor_kills_ = 0;
  std::optional<Line> line_;  // last: it calls back into all of the above
};

Soak::Soak(const SoakPlan& plan) : plan_(plan) {
  receiver_.emplace([this](const httplib::Request& request, httplib::Response& reply) {
    OnRequest(request, reply);
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
  options.on_event = [this](const Json& event) { OnEvent(event); };
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
        {{"task_id", ChildId(id, child)}, {"spec", envelope["task"]["spec"]}});
  }
  return envelope;
}

// --- What is seen --------------------------------------------------------------------------------

void Soak::Violate(const std::string& what) {
  if (violation_.ok()) violation_ = absl::FailedPreconditionError(what);
}

void Soak::Hear(const std::string& id, Sent& sent) {
  if (!sent.heard) history_.Add(Step::kAccepted, id);
  sent.heard = true;
}

void Soak::OnEvent(const Json& event) {
  absl::MutexLock lock(&mutex_);
  const std::string type = event.value("type", ""), worker = event.value("worker_id", "");
  if (type == "HEARTBEAT") {
    OnBeat(worker);
  } else if (type == "REGISTER") {
    beats_[worker].registering = true;
  } else if (absl::StartsWith(type, "TASK")) {
    OnTaskEvent(event);
  }
}

void Soak::OnBeat(const std::string& worker) {
  Beats& beats = beats_[worker];
  if (std::exchange(beats.registering, false) || !undisturbed_) return;
  const absl::Duration now = Now();
  if (beats.last) {
    // Those between may have got lost.
    const double intervals = std::max(1., std::round(absl::FDivDuration(now - *beats.last, kBeat)));
    jitters_.push_back(absl::AbsDuration(now - *beats.last - intervals * kBeat));
  }
  beats.last = now;
}

void Soak::OnTaskEvent(const Json& event) {
  const std::string id = event.value("task_id", "");
  const auto found = sent_.find(id);
  if (found == sent_.end()) return Violate(absl::StrCat("an event of no task: ", DumpJson(event)));
  Sent& sent = found->second;
  if (event["worker_id"] != sent.worker) {
    Violate(absl::StrCat("task ", id, " is not that worker's: ", DumpJson(event)));
  }
  Hear(id, sent);
  const std::optional<Step> step = StepOf(event);
  if (step == Step::kStarted) history_.Add(Step::kStarted, id);
  if (step == Step::kFinished) OnEnd(id, sent, event);
}

void Soak::OnEnd(const std::string& id, Sent& sent, const Json& event) {
  const std::string words = DumpJson(event);
  if (sent.end == words) {  // sent at least once, and this was once more
    ++report_.repeated;
    return;
  }
  history_.Add(Step::kFinished, id);
  if (sent.end.empty() && !sent.missed) --in_flight_[sent.worker];
  sent.end = words;
  if (!sent.task) return;
  const bool succeeded = event["type"] == "TASK_SUCCEEDED";
  ++(succeeded ? report_.succeeded : report_.failed);
  const std::string error = succeeded ? "" : event.value("error", "");
  if (absl::StrContains(error, ToAbsl(kLostExecutor))) {
    ++report_.lost_executors;
  } else if (succeeded != sent.task->may_succeed()) {
    Violate(absl::StrCat("task ", id, " ended as it should not: ", words));
  } else if (!succeeded && !absl::StrContains(error, "as it was told to") &&
             !absl::StrContains(error, "rank 0 died")) {
    Violate(absl::StrCat("task ", id, " does not say why it failed: ", words));
  }
  if (!succeeded || !sent.task->http) return;
  std::vector<std::string> units = {id};
  if (sent.task->kind == SoakTask::Kind::kMerged) {
    units.insert(units.end(), {ChildId(id, 0), ChildId(id, 1)});
  }
  for (const std::string& unit : units) {
    if (stored_.count(unit) > 0) continue;
    Violate(absl::StrCat("task ", id, " succeeded before the result of ", unit, " was stored"));
  }
}

// Results are stored; questions for a task's record are answered as an orchestrator does.
void Soak::OnRequest(const httplib::Request& request, httplib::Response& reply) {
  absl::MutexLock lock(&mutex_);
  if (request.method == "GET") {
    const auto found = sent_.find(request.path.substr(request.path.rfind('/') + 1));
    if (found == sent_.end()) {
      reply.status = 404;
      return;
    }
    const Sent& sent = found->second;
    const bool failed = absl::StrContains(sent.end, "TASK_FAILED");
    const char* status = sent.end.empty() ? "DISPATCHED" : failed ? "FAILED" : "DONE";
    reply.set_content(DumpJson({{"status", status}, {"assigned_worker", sent.worker}}),
                      "application/json");
    return;
  }
  const absl::StatusOr<Json> body = ParseJson(request.body);
  if (!body.ok() || !(*body)["task_id"].is_string()) {
    return Violate(absl::StrCat("not a result: ", request.body));
  }
  const std::string id = (*body)["task_id"];
  history_.Add(Step::kResultSent, id);
  const auto [stored, is_new] = stored_.emplace(id, request.body);
  if (!is_new && stored->second == request.body) {
    ++report_.sent_again;
  } else {
    history_.Add(Step::kResultStored, id);  // the second is a violation
  }
  reply.set_content(R"({"ok":true,"path":"p"})", "application/json");
}

// --- What is done --------------------------------------------------------------------------------

SoakReport Soak::Run() {
  const absl::Duration began = Now();
  bool runs = true;
  for (auto fault = plan_.faults.begin(); runs && fault != plan_.faults.end(); ++fault) {
    runs = PublishUntil(static_cast<size_t>(fault->after_tasks));
    if (runs) Strike(*fault);
  }
  if (runs) PublishUntil(plan_.tasks.size());
  Settle();
  CheckFiles();
  return Report(began);
}

// The next task of the plan to the worker that has least; false when both have enough.
bool Soak::PublishOne() {
  if (next_ >= plan_.tasks.size()) return false;
  const std::string id = TaskId(next_);
  const SoakTask& task = plan_.tasks[next_];
  std::string worker = "w.e0";
  {
    absl::MutexLock lock(&mutex_);
    if (in_flight_["w.e1"] < in_flight_["w.e0"]) worker = "w.e1";
    if (in_flight_[worker] >= kInFlight) return false;
    ++in_flight_[worker];
    sent_[id] = {.task = task, .worker = worker};
    ++report_.published;
  }
  ++next_;
  history_.Add(Step::kPublished, id);
  line_->redis().Publish("tasks", EnvelopeOf(id, task, worker));
  return true;
}

bool Soak::PublishUntil(size_t number) {
  while (next_ < number) {
    if (Eventually([&] { return PublishOne(); }, kPatience)) continue;
    absl::MutexLock lock(&mutex_);
    Violate(absl::StrCat("both workers stand still before ", TaskId(next_)));
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

void Soak::BeginDeaf(SoakFault::Kind kind) {
  history_.BeginDeaf(std::string(ToText(kind)), kOnTheWay);
  absl::MutexLock lock(&mutex_);
  undisturbed_ = false;
}

void Soak::EndDeaf() {
  if (!Probe("w.e0", /*ended=*/false)) {
    absl::MutexLock lock(&mutex_);
    Violate("the sidecar hears nothing any more");
  }
  history_.EndDeaf();
  absl::MutexLock lock(&mutex_);
  for (auto& [id, sent] : sent_) {  // the others are still awaited
    if (sent.heard || sent.missed || !history_.IsDeafAtFirst(id)) continue;
    sent.missed = true;
    --in_flight_[sent.worker];
  }
  undisturbed_ = true;
}

bool Soak::Probe(const std::string& worker, bool ended) {
  const size_t first = probes_;
  absl::Duration next = Now();
  return Eventually(
      [&] {
        if (Now() >= next) {
          const std::string id = absl::StrCat("probe-", probes_++);
          {
            absl::MutexLock lock(&mutex_);
            sent_[id] = {.worker = worker};
            ++in_flight_[worker];
          }
          history_.Add(Step::kPublished, id);
          line_->redis().Publish("tasks", EnvelopeOf(id, SoakTask(), worker));
          next = Now() + absl::Milliseconds(200);
        }
        absl::MutexLock lock(&mutex_);
        for (size_t i = first; i < probes_; ++i) {
          const Sent& probe = sent_[absl::StrCat("probe-", i)];
          if (ended ? !probe.end.empty() : probe.heard) return true;
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
      redis_gate_->Delay(fault.delay);
      Hold(fault.hold, /*publish=*/true);
      return redis_gate_->Pass();
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
  BeginDeaf(fault.kind);
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
      ForgetBeats();
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
  ForgetBeats();
}

// The sidecar's next beats are counted from another moment.
void Soak::ForgetBeats() {
  absl::MutexLock lock(&mutex_);
  for (auto& [worker, beats] : beats_) beats.last.reset();
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
  absl::MutexLock lock(&mutex_);
  if (!tasks.ok()) return Violate(absl::StrCat("the journal: ", tasks.status().message()));
  for (const sidecar::JournalEntry& entry : *tasks) {
    Hear(entry.task.task_id, sent_[entry.task.task_id]);
  }
}

// --- The end -------------------------------------------------------------------------------------

bool Soak::AllEnded() {
  absl::MutexLock lock(&mutex_);
  return std::all_of(sent_.begin(), sent_.end(), [](const auto& sent) {
    return !sent.second.end.empty() || (sent.second.missed && !sent.second.heard);
  });
}

void Soak::Settle() {
  const bool ended = Eventually([&] { return AllEnded(); }, kPatience);
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
  absl::MutexLock lock(&mutex_);
  // What was lost, the history says better.
  if (!idle) Violate(absl::StrCat("at the end not all is idle:\n", state));
  if (!recovered) Violate("at the end no fresh task succeeds");
  if (ended) return;
  for (const auto& [id, sent] : sent_) {
    if (sent.end.empty() && !sent.missed) Violate(absl::StrCat("task ", id, " has no end"));
  }
}

void Soak::CheckFiles() {
  absl::MutexLock lock(&mutex_);
  size_t again = 0;
  for (const auto& [id, sent] : sent_) {
    if (!sent.task || sent.end.empty()) continue;
    const std::filesystem::path folder = line_->results() / id;
    const std::string log = ReadFile(folder / "logs/task.log").value_or("");
    const size_t runs =
        CountOf(log, sent.task->kind == SoakTask::Kind::kEcho ? "| echo: " : "| run");
    if (runs > 1) again += runs - 1;
    if (!absl::StrContains(sent.end, "TASK_SUCCEEDED")) continue;
    if (runs == 0) Violate(absl::StrCat("task ", id, " succeeded and never ran"));
    const absl::StatusOr<std::string> text = ReadFile(folder / "responses.json");
    const absl::StatusOr<Json> result = text.ok() ? ParseJson(*text) : text.status();
    if (!result.ok() || (*result)["ok"] != true) {
      Violate(absl::StrCat("task ", id, " succeeded without a result: ", text.value_or("none")));
    }
  }
  if (again > executor_kills_) {
    Violate(absl::StrCat(again, " tasks ran again for ", executor_kills_, " killed executors"));
  }
  if (report_.lost_executors > executor_kills_) {
    Violate(absl::StrCat(report_.lost_executors, " tasks failed for ", executor_kills_,
                         " killed executors"));
  }
}

SoakReport Soak::Report(absl::Duration began) {
  const absl::Status lost_or_doubled = history_.Check();
  absl::MutexLock lock(&mutex_);
  SoakReport report = report_;
  report.took = Now() - began;
  for (const auto& [id, sent] : sent_) {
    report.missed += sent.task && sent.missed && !sent.heard ? 1 : 0;
  }
  report.beats = jitters_.size();
  std::sort(jitters_.begin(), jitters_.end());
  if (!jitters_.empty()) {
    report.jitter = jitters_[jitters_.size() * 9 / 10];
    report.worst_jitter = jitters_.back();
  }
  report.verdict = !lost_or_doubled.ok() ? lost_or_doubled : violation_;
  if (report.verdict.ok() && (jitters_.empty() || report.jitter > kBeat / 10)) {
    report.verdict = absl::FailedPreconditionError("heartbeats come irregularly");
  }
  return report;
}

}  // namespace

std::string SoakReport::ToString() const {
  return absl::StrFormat(
      "%d tasks in %.0f s: %d succeeded, %d failed (%d with their executor), %d missed while deaf; "
      "%d ends and %d results came again; heartbeats: 9 of 10 within %.1f %%, all within %.1f %%, "
      "of %d intervals",
      published, absl::ToDoubleSeconds(took), succeeded, failed, lost_executors, missed, repeated,
      sent_again, 100 * absl::FDivDuration(jitter, kBeat),
      100 * absl::FDivDuration(worst_jitter, kBeat), beats);
}

SoakReport RunSoak(const SoakPlan& plan) { return Soak(plan).Run(); }

}  // namespace flowmesh::testing
