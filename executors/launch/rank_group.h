// A group of rank processes that work on one task together, started the way torchrun does: each in
// a process group of its own, with torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
// MASTER_PORT, TORCHELASTIC_RESTART_COUNT and so on), CUDA_VISIBLE_DEVICES, OMP_NUM_THREADS and
// settings of libgomp and malloc in its environment, a socket for frames (frames.h), and its output
// captured. Groups of several machines can form one world (NodeOptions). One thread of the group
// watches everything: frames, output and deaths, and ends the whole group in bounded time when one
// rank fails or the group is told to stop.
//
// Threads: Start, WaitReady, Run, and the destructor belong to one thread, which must outlive the
// group, because the kernel ends the ranks when the thread that started them ends. Other methods:
// any thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/status.h"
#include "executors/launch/frames.h"
#include "executors/launch/output_log.h"
#include "executors/launch/rank_process.h"
#include "flowmesh/v1/rank.pb.h"

namespace flowmesh::executor {

// A rank that ended without having been told to, or that had to be ended: the first one noticed.
struct RankDeath {
  int rank = 0;
  ExitStatus status;
  // What it did before it was ended, when its exit status is not the cause: `sent a malformed
  // frame`.
  std::string complaint;
  std::vector<std::string> last_lines;

  // `rank 0 died: signal 11 (Segmentation fault)`.
  std::string ToString() const;
};

class RankGroup {
 public:
  // The result of the first rank here when all have finished; the first failure of any rank; a
  // death; or, after Stop, that the group was stopped before it could answer. That a rank lost
  // another one (PEER_LOST) is the outcome only where nothing better is known.
  struct Stopped {};
  using Outcome = std::variant<v1::TaskFinished, v1::TaskFailed, RankDeath, Stopped>;

  // What ranks say while they run: called from the watching thread, never after Run has returned.
  using OnMessage = std::function<void(int rank, const v1::FromRank& message)>;

  // Starts the processes and returns without waiting for them. NotFound: no such program.
  // ResourceExhausted or Internal: the system refuses processes, sockets or pipes.
  static absl::StatusOr<std::unique_ptr<RankGroup>> Start(const RankGroupOptions& options);

  // Ends what is left, at once, and reaps it.
  ~RankGroup();

  // Waits until every rank is ready. Nothing: all are. Otherwise the group is over.
  std::optional<std::variant<RankDeath, Stopped>> WaitReady(absl::Duration timeout);

  // Runs one task on all ranks; blocks. `logs_dir` (may be empty) takes their output meanwhile.
  // After RankDeath or Stopped the group is over and no process of it is left; otherwise it can run
  // the next task.
  Outcome Run(const v1::RunTask& task, const std::filesystem::path& logs_dir, OnMessage on_message);

  // Ends the group: a stop message and SIGTERM now, SIGKILL after `grace` to whatever is left.
  // Returns at once; WaitGone waits. A second call can only shorten the grace.
  void Stop(absl::Duration grace);

  // Whether no process is left, waiting at most `timeout` for it.
  bool WaitGone(absl::Duration timeout);

  // Whether every rank lives and none has failed.
  bool alive() const;

  // What the first rank here said about itself; empty before it is ready.
  v1::RankReady ready() const;

  std::vector<pid_t> pids() const;

 private:
  struct Member;

  explicit RankGroup(const RankGroupOptions& options);

  // The watching thread, from here on down to the lock.
  void Watch();
  absl::Duration Prepare();
  void NoteSharedMemory();
  void Poll(absl::Duration timeout);
  void ReadOutput(Member& member);
  void ReadFrames(Member& member, bool until_empty);
  void WriteFrames(Member& member);
  void Handle(Member& member, v1::FromRank message);
  void HandleAnswer(Member& member, v1::FromRank message);
  void Complain(Member& member, std::string complaint);
  void Reap(Member& member);

  void NoteFailureLocked(const v1::TaskFailed& failed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndLocked(absl::Duration grace) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SettleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllAnsweredLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NoCauseYetLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AllReadyOrOverLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake();

  const RankGroupOptions options_;
  std::vector<std::unique_ptr<Member>> members_;  // fixed once started
  UniqueFd wake_;                                 // eventfd: the watching thread looks around
  // Of ranks that are being ended; the watching thread's.
  std::set<std::filesystem::path> shared_memory_;

  mutable absl::Mutex mutex_;
  v1::RankReady ready_ ABSL_GUARDED_BY(mutex_);
  // The task that runs. Set by Run, taken back by the watching thread when it is settled.
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  OnMessage on_message_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::filesystem::path> new_logs_dir_ ABSL_GUARDED_BY(mutex_);
  std::optional<Outcome> outcome_ ABSL_GUARDED_BY(mutex_);
  // The first cause: one of these at most.
  std::optional<v1::TaskFailed> task_failure_ ABSL_GUARDED_BY(mutex_);
  std::optional<RankDeath> death_ ABSL_GUARDED_BY(mutex_);
  // Of a rank that lost another one: counts when no better cause comes until `give_up_at_`.
  std::optional<v1::TaskFailed> follow_up_ ABSL_GUARDED_BY(mutex_);
  absl::Duration give_up_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();  // monotonic
  // The end of the group.
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;  // by Stop
  bool term_due_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration kill_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteDuration();  // monotonic
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread watcher_;  // last: it uses all of the above
};

}  // namespace flowmesh::executor
