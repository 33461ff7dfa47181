// The sidecar's figures: memory, time from exec to IDLE, latencies from PUBLISH at a steady rate,
// echo tasks per second through Redis, sidecar and executor, a flood of foreign messages, and a
// start over a full journal. Journal and results are below TMPDIR. Prints
// name<TAB>median<TAB>unit<TAB>minimum<TAB>maximum of the runs.
#include <hiredis/hiredis.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "sidecar/journal/journal.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

constexpr int kRuns = 5;
constexpr int kEchoTasks = 3000;
const std::map<std::string, std::string> kQuiet = {{"LOG_LEVEL", "WARNING"}};
// No orchestrator is there for whose RUNNING an end would have to wait.
const std::map<std::string, std::string> kSidecar = {{"LOG_LEVEL", "WARNING"},
                                                     {"TERMINAL_EVENT_FLOOR_MS", "0"}};

void Report(const char* name, const char* unit, std::vector<double> runs) {
  std::sort(runs.begin(), runs.end());
  std::printf("%s\t%.1f\t%s\t%.1f\t%.1f\n", name, runs[runs.size() / 2], unit, runs.front(),
              runs.back());
  std::fflush(stdout);
}

std::vector<double> Runs(int count, const std::function<double(int)>& run) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) values.push_back(run(i));
  return values;
}

// Of all its threads, since it started.
double CpuSeconds(pid_t pid) {
  std::ifstream stat(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(stat, text);
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

const Json kEcho = {{"taskType", "echo"},
                    {"data", {{"type", "list"}, {"items", {"are you there"}}}}};

// From exec of the sidecar to status IDLE in Redis, Redis and executor being up.
double StartMilliseconds(Line& line) {
  line.StopSidecar();
  const double begin = MonotonicSeconds();
  line.StartSidecar();
  while (line.redis().HashField("worker:w", "status") != "IDLE") {
  }
  return (MonotonicSeconds() - begin) * 1e3;
}

double Quantile(std::vector<double>& sorted, double q) {
  return sorted[std::min(sorted.size() - 1, static_cast<size_t>(q * sorted.size()))];
}

// From PUBLISH to an event of the task, at a steady rate of tasks.
void ReportLatencies(Line& line) {
  constexpr absl::Duration kInterval = absl::Milliseconds(5);  // 200 tasks/s
  constexpr int kTasks = 2000;
  std::map<std::string, absl::Duration> published;
  absl::Duration next = Clock::Real().Monotonic();
  for (int i = 0; i < kTasks; ++i, next += kInterval) {
    absl::SleepFor(next - Clock::Real().Monotonic());
    const std::string id = absl::StrCat("steady-", i);
    const Json envelope = Line::Envelope(id, kEcho, "w");
    published[id] = Clock::Real().Monotonic();
    line.redis().Publish("tasks", envelope);
  }
  line.events().WaitForTerminal(absl::StrCat("steady-", kTasks - 1));
  for (const auto& [name, type] :
       {std::pair("started", "TASK_STARTED"), std::pair("ended", "TASK_SUCCEEDED")}) {
    std::vector<double> milliseconds;
    for (const auto& [at, event] :
         line.events().Timed([type = type](const Json& e) { return e["type"] == type; })) {
      milliseconds.push_back(
          absl::ToDoubleMilliseconds(at - published.at(event["task_id"].get<std::string>())));
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    for (const auto& [label, q] : {std::pair("p50", 0.5), std::pair("p99", 0.99)}) {
      std::printf("%s %s\t%.2f\tms\n", name, label, Quantile(milliseconds, q));
    }
    // Powers of two of a tenth of a millisecond.
    std::printf("%s histogram", name);
    size_t counted = 0;
    for (double bound = 0.1; counted < milliseconds.size(); bound *= 2) {
      const size_t below =
          std::lower_bound(milliseconds.begin(), milliseconds.end(), bound) - milliseconds.begin();
      if (below > counted) std::printf("  <%.1f ms: %zu", bound, below - counted);
      counted = below;
    }
    std::printf("\n");
  }
  std::fflush(stdout);
}

// A million messages for other workers, as a large fleet's channel carries.
void ReportFlood(Line& line) {
  constexpr int kBatch = 10'000, kBatches = 100;
  const std::vector<Json> foreign(kBatch, Line::Envelope("x", kEcho, "somebody-else"));
  const double before = line.sidecar().ResidentMegabytes(), begin = MonotonicSeconds();
  double most = before;
  for (int i = 0; i < kBatches; ++i) {
    line.redis().PublishAll("tasks", foreign);
    // A task of its own after each batch: Redis drops subscribers that lag by too many bytes.
    line.events().WaitForTerminal(line.Dispatch(kEcho));
    most = std::max(most, line.sidecar().ResidentMegabytes());
  }
  std::printf("flood\t%.0f\tmessages/s\n", kBatch * kBatches / (MonotonicSeconds() - begin));
  std::printf("memory before the flood\t%.1f\tMB\nmemory during the flood\t%.1f\tMB\n", before,
              most);
  std::fflush(stdout);
}

// A start over a journal that has kept 100,000 tasks.
void ReportFullJournal(Line& line) {
  constexpr int kTasks = 100'000;
  line.StopSidecar();
  {
    const auto journal = sidecar::Journal::Open(line.dir() / "state/w/journal.db",
                                                sidecar::JournalOptions(), Clock::Real());
    const std::string end(300, 'r');
    for (int i = 0; i < kTasks; ++i) {
      const int64_t id = (*journal)->Accept({.task_id = absl::StrCat("kept-", i),
                                             .worker_id = "w",
                                             .source = "redis",
                                             .document = std::string(500, 'd'),
                                             .received_at = absl::Now()},
                                            nullptr);
      (*journal)->Finish(id, end, "/results", nullptr);
      (*journal)->Conclude(id, end, "", sidecar::JournalKeep::kResult, nullptr);
      (*journal)->Announce(id);
    }
  }
  line.redis().Command({"DEL", "worker:w"});
  Report("start with 100,000 kept tasks", "ms",
         Runs(5, [&](int) { return StartMilliseconds(line); }));
}

// Counts the ends of tasks as they come in, on both channels as an orchestrator does, without
// looking into them further: on two cores its work would be taken from the worker's.
class EndCounter {
 public:
  explicit EndCounter(const std::filesystem::path& socket)
      : context_(redisConnectUnix(socket.c_str())) {
    freeReplyObject(redisCommand(context_, "SUBSCRIBE workers.events tasks.events"));
    redisSetTimeout(context_, timeval{60, 0});
  }
  ~EndCounter() { redisFree(context_); }

  // Waits for `tasks` ends; false when one of them is a failure or a minute passes without an
  // event.
  bool Await(int tasks) {
    bool failed = false;
    while (tasks > 0 && !failed) {
      void* reply = nullptr;
      if (redisGetReply(context_, &reply) != REDIS_OK) return false;
      const auto* message = static_cast<redisReply*>(reply);
      if (message->elements == 3 && message->element[2]->type == REDIS_REPLY_STRING) {
        const std::string_view event(message->element[2]->str, message->element[2]->len);
        if (event.find("\"TASK_SUCCEEDED\"") != std::string_view::npos) --tasks;
        failed = event.find("\"TASK_FAILED\"") != std::string_view::npos;
        if (failed) std::fprintf(stderr, "%s\n", std::string(event).c_str());
      }
      freeReplyObject(reply);
    }
    return !failed;
  }

 private:
  redisContext* context_;
};

// Zero when one of them fails.
double EchoTasksPerSecond(Line& line, EndCounter& ends, int run) {
  std::vector<Json> envelopes(kEchoTasks, Line::Envelope("x", kEcho, "w"));
  for (int i = 0; i < kEchoTasks; ++i) envelopes[i]["task_id"] = absl::StrCat("echo-", run, "-", i);
  const double begin = MonotonicSeconds();
  line.redis().PublishAll("tasks", envelopes);
  return ends.Await(kEchoTasks) ? kEchoTasks / (MonotonicSeconds() - begin) : 0;
}

void ReportEcho(Line& line) {
  const pid_t sidecar = line.sidecar().process().pid();
  const pid_t executor = line.executor("e0").process().pid();
  line.StopObserving();
  EndCounter ends(line.server().socket());
  const double sidecar_cpu = CpuSeconds(sidecar), executor_cpu = CpuSeconds(executor);
  Report("echo", "tasks/s",
         Runs(kRuns, [&](int run) { return EchoTasksPerSecond(line, ends, run); }));
  const double microseconds = 1e6 / (kRuns * kEchoTasks);
  Report("sidecar cpu", "us/task", {(CpuSeconds(sidecar) - sidecar_cpu) * microseconds});
  Report("executor cpu", "us/task", {(CpuSeconds(executor) - executor_cpu) * microseconds});
  Report("sidecar after", "MB", {line.sidecar().ResidentMegabytes()});
}

void ReportIdle(Line& line) {
  Report("start", "ms", Runs(9, [&](int) { return StartMilliseconds(line); }));
  absl::SleepFor(absl::Seconds(2));
  Report("sidecar idle", "MB", {line.sidecar().ResidentMegabytes()});
  Report("executor idle", "MB", {line.executor("e0").ResidentMegabytes()});
}

// Redis on its unix socket, as the peer has it.
Line MakeLine(std::map<std::string, std::string> more) {
  more.insert(kSidecar.begin(), kSidecar.end());
  return Line({.sidecar_env = std::move(more),
               .executor_env = kQuiet,
               .sidecar_redis = [](RedisServer& server) {
                 return absl::StrCat("unix://", server.socket().string());
               }});
}

// All of it, or what `only` names. RESULTS_DIR may put the results elsewhere than the journal.
int Main(const std::string& only) {
  std::map<std::string, std::string> more;
  if (const char* results = std::getenv("RESULTS_DIR")) more["RESULTS_DIR"] = results;
  const std::pair<const char*, void (*)(Line&)> all[] = {{"idle", ReportIdle},
                                                         {"latency", ReportLatencies},
                                                         {"echo", ReportEcho},
                                                         {"flood", ReportFlood},
                                                         {"journal", ReportFullJournal}};
  for (const auto& [name, report] : all) {
    if (!only.empty() && only != name) continue;
    Line line = MakeLine(more);
    report(line);
  }
  return 0;
}

}  // namespace
}  // namespace flowmesh::testing

int main(int argc, char** argv) { return flowmesh::testing::Main(argc > 1 ? argv[1] : ""); }
