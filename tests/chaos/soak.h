// A soak of the whole line: real redis-server, sidecar, two executors and ranks as processes, gates
// before Redis and before the receiver of results. This process is the orchestrator: it publishes
// tasks, hears events and stores results, and unlike a real one it tries nothing again, so that
// whatever is lost stays lost. Faults strike as the plan says while tasks run.
#pragma once

#include <cstddef>
#include <string>

#include "absl/time/time.h"
#include "common/status.h"
#include "tests/chaos/soak_plan.h"

namespace flowmesh::testing {

struct SoakReport {
  // What was promised and not held, the first violation with the whole way of its task:
  //   - History::Check: nothing lost outside the deaf windows, nothing told or stored twice;
  //   - each task ends as it should; one fails for its executor's sake only if one was killed then;
  //   - a result that is sent is stored, children too, before its task is told of as succeeded;
  //   - a task runs once more only if its executor was killed;
  //   - while nothing stands between, nine of ten heartbeats come within 10 % of the interval, and
  //     99 of a hundred come;
  //   - at the end all is idle, the journal holds no open task, and fresh tasks succeed.
  absl::Status verdict;
  size_t published = 0;
  size_t missed = 0;  // in deaf windows: no sign of them ever came
  size_t succeeded = 0, failed = 0;
  size_t repeated = 0;        // ends that were told again with the same words
  size_t sent_again = 0;      // results, likewise
  size_t lost_executors = 0;  // tasks that failed because theirs was killed
  size_t beats = 0;           // that were to come undisturbed
  size_t lost_beats = 0;      // of them, those that did not
  double jitter = 0;          // of the worst but a tenth of them, as a share of the interval
  double worst_jitter = 0;
  absl::Duration took;

  std::string ToString() const;
};

// Blocks until the end. Fails the running test only where its own means fail.
SoakReport RunSoak(const SoakPlan& plan);

}  // namespace flowmesh::testing
