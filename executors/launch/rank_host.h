// Runs tasks on rank processes, one task at a time, and keeps the group of an inference task for
// the next one while both need the same model (warm_key.h). A group that has died, or that the next
// task cannot use, is replaced; ranks that die while they start are tried again with back-off.
//
// A training task gets a group of its own, with as many ranks as its spec and the devices say
// (rank_plan.h), ended with the task. When a rank dies the whole group is started again, as often
// as spec.training.max_restarts allows; TORCHELASTIC_RESTART_COUNT tells its ranks, which then go
// on from their last checkpoint. `<task dir>/_launcher` holds the task document, as task_spec.json,
// and at the end the first rank's result, as result.json.
//
// Threads: Run and Stop belong to one thread that lives as long as this (see rank_group.h);
// ResidentBytes, ranks, rank_starts and rank_deaths may be called from any.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "executors/launch/backoff.h"
#include "executors/launch/rank_group.h"
#include "executors/launch/rank_plan.h"
#include "executors/launch/task_backend.h"

namespace flowmesh::executor {

struct RankHostOptions {
  std::vector<std::string> command;  // the rank program
  bool has_gpus = false;             // whether tasks may run on GPUs
  std::string visible_devices;       // UUIDs of the group's GPUs, by comma
  int threads = 1;
  NodeOptions node;                        // this machine among those that train together
  std::map<std::string, std::string> env;  // more variables for the ranks
  absl::Duration ready_timeout = absl::Seconds(120);
  absl::Duration first_delay = absl::Milliseconds(500);  // after a failed start, then doubling
  absl::Duration most_delay = absl::Seconds(10);
};

class RankHost : public TaskBackend {
 public:
  RankHost(RankHostOptions options, const Clock& clock);
  ~RankHost() override;

  TaskEnd Run(const v1::ExecuteRequest& task, const Json& document, CancelSignal& cancel,
              const TaskSink& sink) override;
  void Release() override;
  uint64_t ResidentBytes() const override;

  size_t ranks() const;  // processes that live and have not failed
  uint64_t rank_starts() const { return rank_starts_; }
  uint64_t rank_deaths() const { return rank_deaths_; }

 private:
  TaskEnd RunTraining(const v1::ExecuteRequest& task, const RankPlan& plan, CancelSignal& cancel,
                      const TaskSink& sink);
  // One attempt on one group.
  TaskEnd RunOnce(const v1::ExecuteRequest& task, const RankPlan& plan, const std::string& key,
                  int restart, CancelSignal& cancel, const TaskSink& sink);
  // Makes group_ one that serves `key`, or says why it cannot.
  std::optional<v1::TaskFailed> Prepare(const v1::ExecuteRequest& task, const RankPlan& plan,
                                        const std::string& key, int restart, CancelSignal& cancel);
  RankGroupOptions GroupOptionsFor(const v1::ExecuteRequest& task, const RankPlan& plan,
                                   int restart) const;
  // Whether the group is started again after this end of a training task.
  bool MayRestart(const TaskEnd& end) const;
  void EndGroup(absl::Duration grace);
  // The task's failure for a death, with the error file beside the task's logs.
  v1::TaskFailed ReportDeath(const v1::ExecuteRequest& task, const RankDeath& death);

  const RankHostOptions options_;
  const std::vector<std::string> gpus_;  // UUIDs
  const Clock& clock_;
  Backoff backoff_;
  std::string key_;  // of group_
  std::atomic<uint64_t> rank_starts_{0};
  std::atomic<uint64_t> rank_deaths_{0};

  // Changed by the running thread only, which therefore reads it without the lock; others take it.
  mutable absl::Mutex mutex_;
  std::unique_ptr<RankGroup> group_;
};

// What a rank program says about itself when started with --describe.
struct RankDescription {
  std::string torch_version;
  std::vector<std::string> task_types;
  bool cuda = false;  // GPUs can be used; false also when they were not asked for
  std::string cuda_problem;
};

// Starts the program once to ask it; blocks, at most `timeout`. An error is one line that says why
// nothing can run here: no program, a missing library.
absl::StatusOr<RankDescription> DescribeRank(const std::filesystem::path& program, bool use_cuda,
                                             const std::string& visible_devices,
                                             absl::Duration timeout);

}  // namespace flowmesh::executor
