#include "sidecar/journal/journal.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/files.h"
#include "common/log.h"
#include "common/sqlite.h"
#include "common/strings.h"
#include "sidecar/journal/database.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr int kVersion = 2;
constexpr absl::Duration kPruneInterval = absl::Seconds(60);
constexpr absl::Duration kIdle = absl::Seconds(1);  // then the log is moved into the file
constexpr off_t kLogBytes = off_t{kLogPages} * kPageBytes;
constexpr size_t kLogStep = 1 << 20;
constexpr size_t kLoad = 8;  // writes in one commit
constexpr absl::Duration kPatience = absl::Milliseconds(2);
// How long a write that nobody waits for may wait for others.
constexpr absl::Duration kLazyDelay = absl::Milliseconds(20);
constexpr int64_t kPruneStep = 500;  // rows per commit, so that tasks do not wait for it

// Small columns first: reading them leaves the pages of a long document alone.
constexpr char kSchema[] = R"sql(
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    bytes INTEGER NOT NULL,        -- of document, end and event
    reusable INTEGER NOT NULL DEFAULT 0,  -- JournalKeep
    received_at INTEGER NOT NULL,  -- microseconds since 1970
    closed_at INTEGER NOT NULL DEFAULT 0,
    task_id TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    dispatched_at TEXT NOT NULL,
    source TEXT NOT NULL,
    attempt TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    error TEXT NOT NULL DEFAULT '',
    event TEXT NOT NULL DEFAULT '',
    document TEXT NOT NULL,
    end BLOB NOT NULL DEFAULT x'');
  CREATE INDEX open_tasks ON tasks (id) WHERE state < 5;
)sql";
// What version 2 has beyond that.
constexpr char kTaskDirColumn[] = "ALTER TABLE tasks ADD COLUMN task_dir TEXT NOT NULL DEFAULT ''";

size_t KeyOf(const std::string& task_id) { return std::hash<std::string>()(task_id); }

absl::Status AdviseOn(const fs::path& file, const absl::Status& status) {
  if (!absl::IsDataLoss(status)) return status;
  return absl::DataLossError(absl::StrCat(
      Message(status), " (", file.string(),
      " is damaged: move it and its -wal file away to start without the tasks in it)"));
}

int64_t SizeOf(const std::string& text) { return static_cast<int64_t>(text.size()); }

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> Journal::Open(const fs::path& file, JournalOptions options,
                                                       const Clock& clock) {
  const auto with_advice = [&](const absl::Status& status) { return AdviseOn(file, status); };
  auto database = std::make_unique<Database>();
  RETURN_IF_ERROR(with_advice(database->Open(file)));
  int64_t version = 0;
  RETURN_IF_ERROR(with_advice(database->Query("PRAGMA user_version", 0, [&](sqlite3_stmt* row) {
    version = sqlite3_column_int64(row, 0);
  })));
  if (version > kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("journal: ", file.string(), ": expected a file of version ", kVersion,
                     " at most, got version ", version, ": a newer sidecar wrote it"));
  }
  if (version < kVersion) {
    RETURN_IF_ERROR(with_advice(
        database->Execute(absl::StrCat("BEGIN; ", version == 0 ? kSchema : "", kTaskDirColumn,
                                       "; PRAGMA user_version=", kVersion, "; COMMIT")
                              .c_str())));
  }
  if (options.max_file_bytes > 0) {
    int64_t page = 4096;
    RETURN_IF_ERROR(database->Query(
        "PRAGMA page_size", 0, [&](sqlite3_stmt* row) { page = sqlite3_column_int64(row, 0); }));
    RETURN_IF_ERROR(database->Query(
        absl::StrCat("PRAGMA max_page_count=", static_cast<int64_t>(options.max_file_bytes) / page),
        0, [](sqlite3_stmt*) {}));
  }
  RETURN_IF_ERROR(with_advice(database->PrepareAll()));
  std::unique_ptr<Journal> journal(new Journal(file, std::move(database), options, clock));
  RETURN_IF_ERROR(with_advice(journal->ReadTotals()));
  journal->thread_ = std::thread([journal = journal.get()] { journal->Run(); });
  return journal;
}

bool Journal::HoldsWork(const fs::path& file) {
  std::error_code error;
  if (!fs::exists(file, error)) return false;
  Database database;
  bool holds = false;
  return database.Open(file).ok() &&
         database
             .Query(absl::StrCat("SELECT 1 FROM tasks WHERE ", kOpenStates, " LIMIT 1"), 0,
                    [&](sqlite3_stmt*) { holds = true; })
             .ok() &&
         holds;
}

Journal::Journal(fs::path file, std::unique_ptr<Database> database, JournalOptions options,
                 const Clock& clock)
    : file_(std::move(file)), options_(options), clock_(clock), database_(std::move(database)) {}

Journal::~Journal() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

// --- At start ------------------------------------------------------------------------------------

absl::Status Journal::ReadTotals() {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(database_->Query("SELECT value FROM meta WHERE key='worker_id'", 0,
                                   [&](sqlite3_stmt* row) { worker_id_ = Text(row, 0); }));
  RETURN_IF_ERROR(
      database_->Query("SELECT coalesce(max(id), 0) FROM tasks", 0,
                       [&](sqlite3_stmt* row) { next_id_ = sqlite3_column_int64(row, 0) + 1; }));
  RETURN_IF_ERROR(
      database_->Query(absl::StrCat("SELECT id, length(CAST(document AS BLOB)), length(end), "
                                    "length(CAST(event AS BLOB)), reusable, task_id "
                                    "FROM tasks WHERE ",
                                    kOpenStates),
                       0, [&](sqlite3_stmt* row) ABSL_NO_THREAD_SAFETY_ANALYSIS {
                         const auto size = [&](int i) {
                           return static_cast<uint64_t>(sqlite3_column_int64(row, i));
                         };
                         const int64_t id = sqlite3_column_int64(row, 0);
                         const Size sizes{.key = KeyOf(Text(row, 5)),
                                          .document = size(1),
                                          .end = size(2),
                                          .event = size(3),
                                          .reusable = KeepOf(row, 4) == JournalKeep::kResult,
                                          .on_disk = true};
                         open_[id] = sizes;
                         stats_.open_bytes += sizes.sum();
                       }));
  stats_.open_tasks = open_.size();
  return database_->Query(
      absl::StrCat("SELECT count(*), coalesce(sum(bytes), 0) FROM tasks WHERE NOT ", kOpenStates),
      0, [&](sqlite3_stmt* row) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        stats_.closed_tasks = static_cast<uint64_t>(sqlite3_column_int64(row, 0));
        stats_.closed_bytes = static_cast<uint64_t>(sqlite3_column_int64(row, 1));
      });
}

// Not at start, which it would hold up: before the first write, which may ask for one.
void Journal::ReadConcluded() {
  std::vector<std::pair<size_t, int64_t>> found;  // hash of the task's id, id
  const absl::Status status =
      database_->Query("SELECT id, task_id FROM tasks WHERE state>=4", 0, [&](sqlite3_stmt* row) {
        found.emplace_back(KeyOf(Text(row, 1)), sqlite3_column_int64(row, 0));
      });
  if (!status.ok()) LogError("{}", Message(AdviseOn(file_, status)));
  absl::MutexLock lock(&mutex_);
  concluded_.reserve(found.size());
  for (const auto& [key, id] : found) ConcludedLocked(key, id);
}

void Journal::SetWorkerId(const std::string& worker_id) {
  worker_id_ = worker_id;
  Post({.apply = [worker_id](Database& db) -> absl::Status {
    ASSIGN_OR_RETURN(const SqliteStatement statement,
                     db.Prepare("INSERT OR REPLACE INTO meta VALUES ('worker_id', ?)"));
    return db.Run(statement, worker_id);
  }});
}

absl::StatusOr<std::vector<JournalEntry>> Journal::OpenTasks() const {
  std::vector<JournalEntry> entries;
  const absl::Status status = database_->Query(
      absl::StrCat("SELECT ", kTaskColumns,
                   ", state, iif(state<4, document, ''), iif(state<4, end, x''), event, error, "
                   "reusable, task_dir FROM tasks WHERE ",
                   kOpenStates, " ORDER BY id"),
      0, [&](sqlite3_stmt* row) {
        JournalEntry& entry = entries.emplace_back();
        entry.id = sqlite3_column_int64(row, 0);
        entry.task = ReadTask(row);
        entry.state = static_cast<JournalState>(sqlite3_column_int(row, 8));
        entry.task.document = Text(row, 9);
        entry.end = Text(row, 10);
        entry.event = Text(row, 11);
        entry.error = Text(row, 12);
        entry.keep = KeepOf(row, 13);
        entry.task_dir = Text(row, 14);
      });
  RETURN_IF_ERROR(AdviseOn(file_, status));
  return entries;
}

absl::StatusOr<std::vector<JournalClosed>> Journal::ClosedTasks(size_t limit) const {
  std::vector<JournalClosed> closed;
  const absl::Status status = database_->Query(
      absl::StrCat("SELECT ", ClosedColumns(), " FROM tasks WHERE NOT ", kOpenStates,
                   " ORDER BY id DESC LIMIT ?"),
      static_cast<int64_t>(limit), [&](sqlite3_stmt* row) { closed.push_back(ReadClosed(row)); });
  RETURN_IF_ERROR(AdviseOn(file_, status));
  std::reverse(closed.begin(), closed.end());
  return closed;
}

// --- The life of a task --------------------------------------------------------------------------

int64_t Journal::Accept(JournalTask task, Accepted done) {
  struct Known {
    std::optional<JournalClosed> earlier;
    bool is_repeated = false;
  };
  const auto known = std::make_shared<Known>();
  absl::MutexLock lock(&mutex_);
  const int64_t id = next_id_++;
  open_[id] = {.key = KeyOf(task.task_id), .document = task.document.size()};
  PostLocked({.apply =
                  [this, id, task = std::move(task), known](Database& db) {
                    known->earlier = FindConcluded(db, task.task_id);
                    known->is_repeated = known->earlier && !task.dispatched_at.empty() &&
                                         known->earlier->task.dispatched_at == task.dispatched_at;
                    if (known->is_repeated) return absl::OkStatus();
                    return db.Run(db.accept, id, task.task_id, task.worker_id, task.dispatched_at,
                                  task.source, task.attempt, task.fingerprint,
                                  absl::ToUnixMicros(task.received_at), task.document,
                                  SizeOf(task.document));
                  },
              .done =
                  [this, id, known, done = std::move(done)](absl::Status status) {
                    if (known->is_repeated) {
                      status = absl::AlreadyExistsError("the journal knows it");
                    }
                    OnAccepted(id, status.ok());
                    if (done) done(status, std::move(known->earlier));
                  }});
  return id;
}

void Journal::OnAccepted(int64_t id, bool on_disk) {
  absl::MutexLock lock(&mutex_);
  const auto entry = open_.find(id);
  if (entry == open_.end()) return;
  if (!on_disk) {
    open_.erase(entry);
    return;
  }
  entry->second.on_disk = true;
  ++stats_.open_tasks;
  stats_.open_bytes += entry->second.sum();
}

void Journal::Dispatch(int64_t id) {
  Post({.apply = [id](Database& db) { return db.Run(db.dispatch, id); }, .urgent = false});
}

void Journal::Finish(int64_t id, std::string end, std::string task_dir, Done done) {
  absl::MutexLock lock(&mutex_);
  if (const auto entry = open_.find(id); entry != open_.end()) {
    entry->second.end = end.size();
    if (entry->second.on_disk) stats_.open_bytes += end.size();
  }
  const bool urgent = done != nullptr;
  PostLocked({.apply =
                  [id, end = std::move(end), task_dir = std::move(task_dir)](Database& db) {
                    return db.Run(db.finish, id, Database::Blob{end}, SizeOf(end), task_dir);
                  },
              .done = std::move(done),
              .urgent = urgent});
}

void Journal::Conclude(int64_t id, std::string event, std::string error, JournalKeep keep,
                       Done done) {
  absl::MutexLock lock(&mutex_);
  if (const auto entry = open_.find(id); entry != open_.end()) {
    entry->second.event = event.size();
    entry->second.reusable = keep == JournalKeep::kResult;
    ConcludedLocked(entry->second.key, id);
    if (entry->second.on_disk) stats_.open_bytes += event.size();
  }
  PostLocked({.apply =
                  [id, event = std::move(event), error = std::move(error), keep](Database& db) {
                    return db.Run(db.conclude, id, event, error, static_cast<int64_t>(keep),
                                  SizeOf(event));
                  },
              .done = std::move(done)});
}

void Journal::Announce(int64_t id) {
  absl::MutexLock lock(&mutex_);
  CloseLocked(id, /*keep=*/true);
  PostLocked({.apply = [id, now = absl::ToUnixMicros(clock_.Now())](
                           Database& db) { return db.Run(db.announce, id, now); },
              .urgent = false});
}

void Journal::Forget(int64_t id) {
  absl::MutexLock lock(&mutex_);
  CloseLocked(id, /*keep=*/false);
  PostLocked({.apply = [id](Database& db) { return db.Run(db.forget, id); }});
}

void Journal::ForgetWorker(const std::string& worker_id) {
  Post({.apply = [worker_id](Database& db) { return db.Run(db.forget_worker, worker_id); }});
}

// The sizes of an entry that is open no longer.
void Journal::CloseLocked(int64_t id, bool keep) {
  const auto entry = open_.find(id);
  if (entry == open_.end()) return;
  const Size& size = entry->second;
  if (size.on_disk) {
    --stats_.open_tasks;
    stats_.open_bytes -= size.sum();
  }
  if (keep) {
    ++stats_.closed_tasks;
    if (size.reusable) stats_.closed_bytes += size.end;
  } else {
    ForgetConcludedLocked(size.key, id);
  }
  open_.erase(entry);
}

void Journal::ConcludedLocked(size_t key, int64_t id) {
  int64_t& latest = concluded_[key];
  latest = std::max(latest, id);
}

void Journal::ForgetConcludedLocked(size_t key, int64_t id) {
  const auto latest = concluded_.find(key);
  if (latest != concluded_.end() && latest->second == id) concluded_.erase(latest);
}

absl::StatusOr<std::string> Journal::ReadEnd(int64_t id) {
  struct Answer {
    absl::Notification arrived;
    absl::StatusOr<std::string> end = absl::NotFoundError("journal: the result is no longer kept");
  };
  const auto answer = std::make_shared<Answer>();
  Post({.apply =
            [answer, id](Database& db) {
              Database::Bind(db.read_end.get(), 1, id);
              return db.Each(db.read_end, [&](sqlite3_stmt* row) { answer->end = Text(row, 0); });
            },
        .done =
            [answer](const absl::Status& status) {
              if (!status.ok()) answer->end = status;
              answer->arrived.Notify();
            }});
  answer->arrived.WaitForNotification();
  return std::move(answer->end);
}

void Journal::Flush() {
  const auto written = std::make_shared<absl::Notification>();
  Post({.apply = [](Database&) { return absl::OkStatus(); },
        .done = [written](const absl::Status&) { written->Notify(); }});
  written->WaitForNotification();
}

JournalStats Journal::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

// --- The writing thread --------------------------------------------------------------------------

void Journal::Post(Write write) {
  absl::MutexLock lock(&mutex_);
  PostLocked(std::move(write));
}

void Journal::PostLocked(Write write) {
  urgent_ = urgent_ || write.urgent;
  writes_.push_back(std::move(write));
}

// A commit that makes the log longer waits for the file's size to reach the disk too, half as long
// again as one that writes over what is there. So the log gets its size while there is nothing else
// to do; SQLite takes bytes that are no frames of its own for the log's end. False: that is done,
// or cannot be done.
bool Journal::LengthenLog() const {
  // SQLite's locks are those of the other file: closing this one lets go of none.
  const UniqueFd log(::open((file_.string() + "-wal").c_str(), O_WRONLY | O_CLOEXEC));
  struct stat info;
  if (!log.valid() || ::fstat(log.get(), &info) != 0 || info.st_size >= kLogBytes) return false;
  const std::string zeros(std::min<size_t>(kLogStep, kLogBytes - info.st_size), '\0');
  return ::pwrite(log.get(), zeros.data(), zeros.size(), info.st_size) > 0 &&
         ::fdatasync(log.get()) == 0;
}

void Journal::Run() {
  bool log_is_used = false, log_is_short = true, prunes = false, knows_concluded = false;
  while (true) {
    std::vector<Write> batch;
    {
      absl::MutexLock lock(&mutex_);
      Clock::Real().Await(mutex_, absl::Condition(this, &Journal::WorkLocked),
                          log_is_short || prunes ? absl::ZeroDuration()
                          : log_is_used          ? kIdle
                                                 : kPruneInterval);
      Clock::Real().Await(mutex_, absl::Condition(this, &Journal::UrgentLocked),
                          writes_.empty() ? absl::ZeroDuration() : kLazyDelay);
      if (writes_.empty() && stopping_) return;
      batch.swap(writes_);
      urgent_ = false;
    }
    if (batch.empty() && log_is_short) {
      log_is_short = LengthenLog();
      continue;
    }
    if (batch.empty() && log_is_used && !prunes) {
      // Busy or full: the next idle time will do.
      (void)database_->Execute("PRAGMA wal_checkpoint(PASSIVE)");
    }
    log_is_used = !batch.empty() || prunes;
    if (!batch.empty()) {
      if (!std::exchange(knows_concluded, true)) ReadConcluded();
      Commit(batch);
    }
    prunes = Prune();
    // Under load a little patience saves many commits, and so processor time that tasks need.
    if (batch.size() >= kLoad) absl::SleepFor(kPatience);
  }
}

// All of the writes in one transaction.
absl::Status Journal::Apply(Database& database, Write* writes, size_t count) {
  absl::Status status = database.Run(database.begin);
  for (size_t i = 0; status.ok() && i < count; ++i) status = writes[i].apply(database);
  if (status.ok()) status = database.Run(database.commit);
  // An error may have ended the transaction already.
  if (!status.ok() && sqlite3_get_autocommit(database.db.get()) == 0) {
    (void)database.Run(database.rollback);
  }
  return status;
}

void Journal::Commit(std::vector<Write>& batch) {
  const absl::Status together = Apply(*database_, batch.data(), batch.size());
  std::vector<absl::Status> outcomes(batch.size(), together);
  uint64_t failures = 0;
  for (size_t i = 0; !together.ok() && i < batch.size(); ++i) {
    // One that does not fit must not take the others with it.
    if (batch.size() > 1) outcomes[i] = Apply(*database_, &batch[i], 1);
    if (outcomes[i].ok()) continue;
    ++failures;
    LogError("{}", Message(outcomes[i]));
  }
  {
    absl::MutexLock lock(&mutex_);
    ++stats_.commits;
    stats_.failures += failures;
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].done) batch[i].done(outcomes[i]);
  }
}

std::optional<JournalClosed> Journal::FindConcluded(Database& database,
                                                    const std::string& task_id) {
  {
    absl::MutexLock lock(&mutex_);
    const auto latest = concluded_.find(KeyOf(task_id));
    if (latest == concluded_.end()) return std::nullopt;
    Database::Bind(database.find_concluded.get(), 1, latest->second);
  }
  std::optional<JournalClosed> found;
  const absl::Status status =
      database.Each(database.find_concluded, [&](sqlite3_stmt* row) { found = ReadClosed(row); });
  if (!status.ok()) LogError("{}", Message(status));
  // Another task may have the same hash.
  if (found && found->task.task_id != task_id) found.reset();
  return found;
}

// Closed rows that are too old or too many, in steps that tasks need not wait for long.
bool Journal::Prune() {
  const int64_t old = absl::ToUnixMicros(clock_.Now() - options_.keep_for);
  int64_t closed_until = old, count = kPruneStep;
  bool by_age = true;
  {
    absl::MutexLock lock(&mutex_);
    if (stats_.closed_tasks == 0) return false;
    const bool too_many = stats_.closed_tasks > options_.keep_tasks;
    const bool too_large = stats_.closed_bytes > options_.keep_bytes;
    const absl::Duration now = clock_.Monotonic();
    if (!too_many && !too_large && now < next_prune_) return false;
    by_age = !too_many && !too_large;
    if (!by_age) {
      closed_until = std::numeric_limits<int64_t>::max();
      // Some more than needed, so that this does not happen with every task.
      count = static_cast<int64_t>(
          std::max<uint64_t>(std::min<uint64_t>(stats_.closed_tasks / 50, kPruneStep), 1));
    }
    next_prune_ = now + kPruneInterval;
  }
  int64_t rows = 0;
  uint64_t bytes = 0;
  std::vector<std::pair<size_t, int64_t>> gone;  // hash of the task's id, id
  Database::Bind(database_->prune.get(), 1, closed_until, count);
  const absl::Status status = database_->Each(database_->prune, [&](sqlite3_stmt* row) {
    ++rows;
    bytes += static_cast<uint64_t>(sqlite3_column_int64(row, 0));
    gone.emplace_back(KeyOf(Text(row, 2)), sqlite3_column_int64(row, 1));
  });
  if (!status.ok()) LogError("{}", Message(status));
  absl::MutexLock lock(&mutex_);
  for (const auto& [key, id] : gone) ForgetConcludedLocked(key, id);
  stats_.closed_tasks -= std::min(stats_.closed_tasks, static_cast<uint64_t>(rows));
  stats_.closed_bytes -= std::min(stats_.closed_bytes, bytes);
  if (!status.ok() || rows < count) return false;
  if (by_age) next_prune_ = absl::ZeroDuration();
  return by_age || stats_.closed_tasks > options_.keep_tasks ||
         stats_.closed_bytes > options_.keep_bytes;
}

}  // namespace flowmesh::sidecar
