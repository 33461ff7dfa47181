// What a soak does, made from a seed before it begins: every task, every fault, and when.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace flowmesh::testing {

struct SoakTask {
  enum class Kind {
    kEcho,    // computed by the executor itself
    kSleep,   // on a rank, for a while
    kMerged,  // the same with two children
    kFail,    // its rank gives an error
    kCrash,   // its rank is ended by a signal
    kExit,    // its rank exits with 0, too early
  };
  Kind kind = Kind::kEcho;
  bool http = false;  // its result is sent, too
  int sleep_ms = 0;
  int signal = 0;

  bool may_succeed() const { return kind <= Kind::kMerged; }
};

struct SoakFault {
  enum class Kind {
    kRedisKilled,
    kRedisStopped,
    kRedisFlushed,
    kRedisDropped,     // the sidecar's connections to it are closed
    kRedisRefused,     // closed, and no new ones
    kRedisCut,         // closed after so many bytes more
    kRedisBlackholed,  // nothing arrives, and nobody is told
    kRedisDelayed,     // everything arrives later
    kSidecarKilled,
    kSidecarStopped,
    kExecutorKilled,
    kExecutorStopped,
    kReceiverDropped,  // the receiver of results: as above
    kReceiverRefused,
    kReceiverCut,
    kReceiverBlackholed,
    kOrchestratorAway,  // nobody hears events, and the receiver refuses
    kSidecarAndExecutorKilled,
    kRedisAndSidecarKilled,
    kCount,
  };
  Kind kind = Kind::kRedisKilled;
  int after_tasks = 0;   // published before it strikes
  absl::Duration hold;   // how long it lasts
  int executor = 0;      // which, if any
  uint64_t bytes = 0;    // of the cuts
  absl::Duration delay;  // of kRedisDelayed
};

std::string_view ToText(SoakTask::Kind kind);
std::string_view ToText(SoakFault::Kind kind);

struct SoakPlan {
  uint32_t seed = 0;
  std::vector<SoakTask> tasks;
  std::vector<SoakFault> faults;  // by after_tasks

  // A line per fault, and the numbers of tasks.
  std::string ToString() const;
};

// A pure function: the same arguments give the same plan, on any machine.
SoakPlan MakeSoakPlan(uint32_t seed, int tasks);

}  // namespace flowmesh::testing
