// What a crash must not take: every accepted task, the end that its executor reported, and its
// terminal event, in one SQLite file. States and invariants: journal.md beside this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// What of a concluded run a later attempt of its task is to know.
enum class JournalKeep { kNothing, kResult, kDeath };

enum class JournalState { kAccepted = 1, kDispatched, kFinished, kDelivered, kAnnounced };

// Where a task came from.
inline constexpr char kFromRedis[] = "redis", kFromLocal[] = "local";

// A task as it was accepted.
struct JournalTask {
  std::string task_id, worker_id;
  std::string dispatched_at;  // verbatim, may be empty
  std::string source;         // kFromRedis, kFromLocal
  std::string attempt;        // by which the executor knows this run
  std::string fingerprint;    // of the document
  std::string document;       // JSON
  absl::Time received_at;
};

// Work that an earlier life of the sidecar left behind.
struct JournalEntry {
  int64_t id = 0;
  JournalState state = JournalState::kAccepted;
  JournalTask task;
  std::string end, task_dir;  // from kFinished on: what Finish got
  // From kDelivered on: what Conclude got.
  std::string event, error;
  JournalKeep keep = JournalKeep::kNothing;
};

// A task whose end was told, or is yet to be, without its document.
struct JournalClosed {
  int64_t id = 0;
  JournalTask task;
  std::string task_dir;  // empty: it never ran
  std::string error;     // empty: it succeeded
  // kResult: ReadEnd gives a result that may be delivered again. kDeath: it ended what ran it.
  JournalKeep keep = JournalKeep::kNothing;
  absl::Time closed_at;
};

struct JournalOptions {
  // Told tasks are kept for this long, and at most so many and so much of them.
  absl::Duration keep_for = absl::Hours(24);
  size_t keep_tasks = 100'000;
  uint64_t keep_bytes = 256u << 20;
  uint64_t max_file_bytes = 0;  // writes beyond it fail as on a full disk; 0: the disk is the limit
};

struct JournalStats {
  uint64_t open_tasks = 0;    // accepted, on disk, and not told
  uint64_t open_bytes = 0;    // of their documents and results: the spool
  uint64_t closed_tasks = 0;  // told and kept
  uint64_t closed_bytes = 0;
  uint64_t commits = 0;
  uint64_t failures = 0;  // writes that did not reach the disk
};

// Thread-safe. One thread writes; writes take effect in the order of the calls, and those that come
// while a commit is under way share the next one. `done` (may be null) is called from that thread
// when the write is on disk, or with the reason why it is not; it must not wait for the journal.
class Journal {
 public:
  using Done = std::function<void(const absl::Status&)>;

  // Opens or makes the file. FailedPrecondition: a newer version wrote it. DataLoss: it is damaged.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::filesystem::path& file,
                                                       JournalOptions options, const Clock& clock);
  // Whether a journal holds tasks whose end was not told. False when there is none or it cannot be
  // read. The caller holds the lock of its folder.
  static bool HoldsWork(const std::filesystem::path& file);

  ~Journal();  // writes what was asked for

  // --- At start, before any write ---------------------------------------------------------------

  // The worker id of the last life; empty in a new journal.
  const std::string& worker_id() const { return worker_id_; }
  void SetWorkerId(const std::string& worker_id);
  // Oldest first. What a kDelivered one does not need any more is left out: document and end.
  absl::StatusOr<std::vector<JournalEntry>> OpenTasks() const;
  // The newest `limit`, oldest first.
  absl::StatusOr<std::vector<JournalClosed>> ClosedTasks(size_t limit) const;

  // --- The life of a task -----------------------------------------------------------------------

  // `earlier`: the latest run of this task that was concluded, where one is kept. AlreadyExists:
  // the message is that of this run, by its dispatched_at, and is not written.
  using Accepted = std::function<void(const absl::Status&, std::optional<JournalClosed> earlier)>;
  // Returns the entry's id.
  int64_t Accept(JournalTask task, Accepted done);
  void Dispatch(int64_t id);
  // `end`: the executor's last event, serialized. `task_dir`: where its files are; may be empty.
  void Finish(int64_t id, std::string end, std::string task_dir, Done done);
  // `event`: the terminal event as it will be published. `error` empty: the task succeeded.
  void Conclude(int64_t id, std::string event, std::string error, JournalKeep keep, Done done);
  // Somebody has received the event, or it was given up.
  void Announce(int64_t id);
  // The task was given back: as if it had never come.
  void Forget(int64_t id);
  // Every task of a worker that came over Redis and was not concluded was given back. Others have
  // nobody else to run them.
  void ForgetWorker(const std::string& worker_id);

  // What Finish got; NotFound when it is no longer kept. Waits for the writing thread.
  absl::StatusOr<std::string> ReadEnd(int64_t id);
  // Waits until everything asked for so far is on disk.
  void Flush();

  JournalStats stats() const;

 private:
  struct Database;
  struct Write {
    std::function<absl::Status(Database&)> apply;
    Done done;
    bool urgent = true;  // else it may wait for company
  };
  struct Size {
    size_t key = 0;  // of the task's id
    uint64_t document = 0, end = 0, event = 0;
    bool reusable = false;
    bool on_disk = false;  // and counted
    uint64_t sum() const { return document + end + event; }
  };

  Journal(std::filesystem::path file, std::unique_ptr<Database> database, JournalOptions options,
          const Clock& clock);
  absl::Status ReadTotals();
  void ReadConcluded();
  void Post(Write write);
  void PostLocked(Write write) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Run();
  bool LengthenLog() const;
  void Commit(std::vector<Write>& batch);
  static absl::Status Apply(Database& database, Write* writes, size_t count);
  // True: there is more to do at once.
  bool Prune();
  // In the writing thread. Nothing when none is kept.
  std::optional<JournalClosed> FindConcluded(Database& database, const std::string& task_id);
  void OnAccepted(int64_t id, bool on_disk);
  void CloseLocked(int64_t id, bool keep) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ConcludedLocked(size_t key, int64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetConcludedLocked(size_t key, int64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool WorkLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !writes_.empty();
  }
  bool UrgentLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || urgent_; }

  const std::filesystem::path file_;
  const JournalOptions options_;
  const Clock& clock_;
  std::string worker_id_;
  std::unique_ptr<Database> database_;  // once something was written, the writing thread's
  absl::Duration next_prune_;           // monotonic

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool urgent_ ABSL_GUARDED_BY(mutex_) = false;  // something in writes_ is
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::vector<Write> writes_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, Size> open_ ABSL_GUARDED_BY(mutex_);  // by id
  // The latest concluded run by the hash of its task's id: what is not here need not be looked for.
  std::unordered_map<size_t, int64_t> concluded_ ABSL_GUARDED_BY(mutex_);
  JournalStats stats_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace flowmesh::sidecar
