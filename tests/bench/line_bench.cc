// The sidecar's figures: memory when idle, time from exec to IDLE, latency from publish to
// TASK_STARTED, and echo tasks per second through Redis, sidecar and executor with results on disk.
// Prints name<TAB>median<TAB>unit<TAB>minimum<TAB>maximum of the runs.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

constexpr int kRuns = 5;
constexpr int kEchoTasks = 3000;
const std::map<std::string, std::string> kQuiet = {{"LOG_LEVEL", "WARNING"}};

double Seconds() { return absl::ToDoubleSeconds(Clock::Real().Monotonic()); }

void Report(const char* name, const char* unit, std::vector<double> runs) {
  std::sort(runs.begin(), runs.end());
  std::printf("%s\t%.1f\t%s\t%.1f\t%.1f\n", name, runs[runs.size() / 2], unit, runs.front(),
              runs.back());
  std::fflush(stdout);
}

double ResidentMegabytes(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
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
  const double begin = Seconds();
  line.StartSidecar();
  while (line.redis().HashField("worker:w", "status") != "IDLE") {
  }
  return (Seconds() - begin) * 1e3;
}

double StartedLatencyMilliseconds(Line& line) {
  const double begin = Seconds();
  const std::string id = line.Dispatch(kEcho);
  line.events().WaitFor(
      [&](const Json& e) { return e["type"] == "TASK_STARTED" && e["task_id"] == id; });
  const double latency = (Seconds() - begin) * 1e3;
  line.events().WaitForTerminal(id);
  return latency;
}

double EchoTasksPerSecond(Line& line, int run) {
  const auto id = [&](int i) { return absl::StrCat("echo-", run, "-", i); };
  std::vector<Json> envelopes(kEchoTasks, Line::Envelope("x", kEcho, "w"));
  for (int i = 0; i < kEchoTasks; ++i) envelopes[i]["task_id"] = id(i);
  const double begin = Seconds();
  line.redis().PublishAll("tasks", envelopes);
  // Deliveries overlap: the last ones may end in any order.
  for (int i = kEchoTasks - 32; i < kEchoTasks; ++i) {
    if (!line.events().WaitForTerminal(id(i), absl::Seconds(60))) return 0;
  }
  const double seconds = Seconds() - begin;
  const size_t succeeded =
      line.events()
          .All([&](const Json& e) {
            return e["type"] == "TASK_SUCCEEDED" &&
                   e["task_id"].get<std::string>().rfind(absl::StrCat("echo-", run, "-"), 0) == 0;
          })
          .size();
  if (succeeded != kEchoTasks) {
    const std::optional<Json> failure =
        line.events().WaitFor([](const Json& e) { return e["type"] == "TASK_FAILED"; },
                              absl::ZeroDuration());
    std::printf("only %zu of %d succeeded: %s\n", succeeded, kEchoTasks,
                failure ? DumpJson(*failure).c_str() : "no event");
  }
  return kEchoTasks / seconds;
}

std::vector<double> Runs(int count, const std::function<double(int)>& run) {
  std::vector<double> values;
  for (int i = 0; i < count; ++i) values.push_back(run(i));
  return values;
}

int Main() {
  {
    Line line({.sidecar_env = kQuiet, .executor_env = kQuiet});
    Report("start", "ms", Runs(9, [&](int) { return StartMilliseconds(line); }));
    absl::SleepFor(absl::Seconds(2));
    Report("sidecar idle", "MB", {ResidentMegabytes(line.sidecar().process().pid())});
    Report("executor idle", "MB", {ResidentMegabytes(line.executor("e0").process().pid())});
    Report("latency", "ms", Runs(101, [&](int) { return StartedLatencyMilliseconds(line); }));
  }
  Line line({.sidecar_env = kQuiet, .executor_env = kQuiet});
  const pid_t sidecar = line.sidecar().process().pid();
  const pid_t executor = line.executor("e0").process().pid();
  const double sidecar_cpu = CpuSeconds(sidecar), executor_cpu = CpuSeconds(executor);
  Report("echo", "tasks/s", Runs(kRuns, [&](int run) { return EchoTasksPerSecond(line, run); }));
  const double microseconds = 1e6 / (kRuns * kEchoTasks);
  Report("sidecar cpu", "us/task", {(CpuSeconds(sidecar) - sidecar_cpu) * microseconds});
  Report("executor cpu", "us/task", {(CpuSeconds(executor) - executor_cpu) * microseconds});
  Report("sidecar after", "MB", {ResidentMegabytes(line.sidecar().process().pid())});
  return 0;
}

}  // namespace
}  // namespace flowmesh::testing

int main() { return flowmesh::testing::Main(); }
