#include "tests/chaos/soak_plan.h"

#include <signal.h>

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/strings.h"

namespace flowmesh::testing {
namespace {

constexpr int kTasksPerFault = 80;

// std's distributions differ between libraries; the engine does not.
class Dice {
 public:
  explicit Dice(uint32_t seed) : engine_(seed) {}
  // From `least` to `most`, both included.
  int Between(int least, int most) {
    return least + static_cast<int>(engine_() % static_cast<uint32_t>(most - least + 1));
  }
  bool Percent(int chance) { return Between(1, 100) <= chance; }

 private:
  std::mt19937 engine_;
};

SoakTask MakeTask(Dice& dice) {
  SoakTask task;
  const int roll = dice.Between(1, 100);
  task.kind = roll <= 70   ? SoakTask::Kind::kEcho
              : roll <= 82 ? SoakTask::Kind::kSleep
              : roll <= 92 ? SoakTask::Kind::kMerged
              : roll <= 96 ? SoakTask::Kind::kFail
              : roll <= 99 ? SoakTask::Kind::kCrash
                           : SoakTask::Kind::kExit;
  task.http = dice.Percent(40);
  task.sleep_ms = dice.Between(1, 60);
  constexpr int kSignals[] = {SIGKILL, SIGSEGV, SIGABRT};
  task.signal = kSignals[dice.Between(0, 2)];
  return task;
}

// Bounds in milliseconds: long enough to matter, short enough for a run of minutes.
std::pair<int, int> HoldOf(SoakFault::Kind kind) {
  switch (kind) {
    case SoakFault::Kind::kRedisFlushed:
    case SoakFault::Kind::kRedisDropped:
    case SoakFault::Kind::kReceiverDropped:
      return {0, 0};
    case SoakFault::Kind::kRedisStopped:
    case SoakFault::Kind::kRedisBlackholed:
      return {100, 2500};  // the sidecar calls a subscription deaf after 2 s
    case SoakFault::Kind::kSidecarStopped:
      return {50, 1500};
    case SoakFault::Kind::kSidecarKilled:
    case SoakFault::Kind::kExecutorKilled:
    case SoakFault::Kind::kSidecarAndExecutorKilled:
      return {0, 400};
    default:
      return {50, 1200};
  }
}

SoakFault MakeFault(Dice& dice, SoakFault::Kind kind, int after_tasks) {
  const auto [least, most] = HoldOf(kind);
  return {.kind = kind,
          .after_tasks = after_tasks,
          .hold = absl::Milliseconds(dice.Between(least, most)),
          .executor = dice.Between(0, 1),
          .bytes = static_cast<uint64_t>(dice.Between(1, 4000)),
          .delay = absl::Milliseconds(dice.Between(1, 60))};
}

}  // namespace

std::string_view ToText(SoakTask::Kind kind) {
  switch (kind) {
    case SoakTask::Kind::kEcho:
      return "echo";
    case SoakTask::Kind::kSleep:
      return "sleep";
    case SoakTask::Kind::kMerged:
      return "merged";
    case SoakTask::Kind::kFail:
      return "fail";
    case SoakTask::Kind::kCrash:
      return "crash";
    case SoakTask::Kind::kExit:
      break;
  }
  return "exit";
}

std::string_view ToText(SoakFault::Kind kind) {
  switch (kind) {
    case SoakFault::Kind::kRedisKilled:
      return "redis is killed";
    case SoakFault::Kind::kRedisStopped:
      return "redis is stopped";
    case SoakFault::Kind::kRedisFlushed:
      return "redis is flushed";
    case SoakFault::Kind::kRedisDropped:
      return "redis connections are closed";
    case SoakFault::Kind::kRedisRefused:
      return "redis refuses connections";
    case SoakFault::Kind::kRedisCut:
      return "redis connections are cut";
    case SoakFault::Kind::kRedisBlackholed:
      return "redis falls silent";
    case SoakFault::Kind::kRedisDelayed:
      return "redis is slow";
    case SoakFault::Kind::kSidecarKilled:
      return "the sidecar is killed";
    case SoakFault::Kind::kSidecarStopped:
      return "the sidecar is stopped";
    case SoakFault::Kind::kExecutorKilled:
      return "an executor is killed";
    case SoakFault::Kind::kExecutorStopped:
      return "an executor is stopped";
    case SoakFault::Kind::kReceiverDropped:
      return "the receiver's connections are closed";
    case SoakFault::Kind::kReceiverRefused:
      return "the receiver refuses connections";
    case SoakFault::Kind::kReceiverCut:
      return "the receiver's connections are cut";
    case SoakFault::Kind::kReceiverBlackholed:
      return "the receiver falls silent";
    case SoakFault::Kind::kOrchestratorAway:
      return "the orchestrator is away";
    case SoakFault::Kind::kSidecarAndExecutorKilled:
      return "sidecar and executor are killed";
    case SoakFault::Kind::kRedisAndSidecarKilled:
      return "redis and sidecar are killed";
    case SoakFault::Kind::kCount:
      break;
  }
  return "";
}

SoakPlan MakeSoakPlan(uint32_t seed, int tasks) {
  SoakPlan plan{.seed = seed};
  Dice dice(seed);
  for (int i = 0; i < tasks; ++i) plan.tasks.push_back(MakeTask(dice));
  // Each kind comes before any comes again, in another order each time.
  constexpr int kKinds = static_cast<int>(SoakFault::Kind::kCount);
  std::vector<int> deck;
  for (int after = kTasksPerFault / 2; after < tasks; after += kTasksPerFault) {
    if (deck.empty()) {
      for (int i = 0; i < kKinds; ++i) deck.insert(deck.begin() + dice.Between(0, i), i);
    }
    plan.faults.push_back(MakeFault(dice, static_cast<SoakFault::Kind>(deck.back()),
                                    after + dice.Between(0, kTasksPerFault / 2)));
    deck.pop_back();
  }
  return plan;
}

std::string SoakPlan::ToString() const {
  std::string text = absl::StrCat("seed ", seed, ": ", tasks.size(), " tasks (");
  std::map<SoakTask::Kind, int> kinds;
  for (const SoakTask& task : tasks) ++kinds[task.kind];
  for (const auto& [kind, count] : kinds) {
    absl::StrAppend(&text, count, " ", ToAbsl(ToText(kind)), ", ");
  }
  absl::StrAppend(&text, std::count_if(tasks.begin(), tasks.end(), [](auto& t) { return t.http; }),
                  " over http), ", faults.size(), " faults");
  for (const SoakFault& fault : faults) {
    absl::StrAppend(&text,
                    absl::StrFormat("\n  after %5d tasks  %-38s %6s  executor %d, %d bytes",
                                    fault.after_tasks, ToAbsl(ToText(fault.kind)),
                                    absl::FormatDuration(fault.hold), fault.executor, fault.bytes));
  }
  return text;
}

}  // namespace flowmesh::testing
