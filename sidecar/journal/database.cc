#include "sidecar/journal/database.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/log.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

// SQLite would make it readable for everybody; its log gets the mode of the file. When this fails
// because the file cannot be opened, SQLite says so.
void MakePrivate(const fs::path& file) {
  // Closed before SQLite opens it: that would let go of SQLite's locks.
  const UniqueFd made(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (made.valid() && ::fchmod(made.get(), 0600) != 0) {
    LogWarning("others may read it: {}", Message(ErrnoError("cannot change the mode of", file)));
  }
}

}  // namespace

std::string Text(sqlite3_stmt* row, int column) {
  const void* text = sqlite3_column_blob(row, column);
  const auto size = static_cast<size_t>(sqlite3_column_bytes(row, column));
  return text == nullptr ? "" : std::string(static_cast<const char*>(text), size);
}

JournalKeep KeepOf(sqlite3_stmt* row, int column) {
  return static_cast<JournalKeep>(sqlite3_column_int(row, column));
}

JournalTask ReadTask(sqlite3_stmt* row) {
  return {.task_id = Text(row, 1),
          .worker_id = Text(row, 2),
          .dispatched_at = Text(row, 3),
          .source = Text(row, 4),
          .attempt = Text(row, 5),
          .fingerprint = Text(row, 6),
          .document = "",
          .received_at = absl::FromUnixMicros(sqlite3_column_int64(row, 7))};
}

std::string ClosedColumns() {
  return absl::StrCat(kTaskColumns, ", error, reusable, closed_at, task_dir");
}

JournalClosed ReadClosed(sqlite3_stmt* row) {
  return {.id = sqlite3_column_int64(row, 0),
          .task = ReadTask(row),
          .task_dir = Text(row, 11),
          .error = Text(row, 8),
          .keep = KeepOf(row, 9),
          .closed_at = absl::FromUnixMicros(sqlite3_column_int64(row, 10))};
}

absl::Status Journal::Database::Open(const fs::path& file) {
  MakePrivate(file);
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(file.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  db.reset(handle);
  if (code != SQLITE_OK) return Error(absl::StrCat("open ", file.string()));
  // The folder's lock keeps others out; with the index of the log in our own memory, no shared
  // memory file is needed.
  return Execute(
      absl::StrCat(
          "PRAGMA page_size=", kPageBytes,
          "; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
          "PRAGMA temp_store=MEMORY;"
          // Moving the log's pages into the file holds a commit up for some milliseconds: seldom
          // while there is work, and as soon as there is none.
          "PRAGMA wal_autocheckpoint=",
          kLogPages)
          .c_str());
}

absl::Status Journal::Database::PrepareAll() {
  const std::string open = kOpenStates;
  const std::pair<SqliteStatement*, std::string> all[] = {
      {&begin, "BEGIN IMMEDIATE"},
      {&commit, "COMMIT"},
      {&rollback, "ROLLBACK"},
      {&accept, absl::StrCat("INSERT INTO tasks (", kTaskColumns,
                             ", document, bytes, state) VALUES (?,?,?,?,?,?,?,?,?,?,1)")},
      {&dispatch, "UPDATE tasks SET state=2 WHERE id=?1 AND state<2"},
      {&finish,
       "UPDATE tasks SET state=3, end=?2, bytes=bytes+?3, task_dir=?4 WHERE id=?1 AND state<3"},
      {&conclude,
       "UPDATE tasks SET state=4, event=?2, error=?3, reusable=?4, bytes=bytes+?5 "
       "WHERE id=?1 AND state<4"},
      // What is kept is what a repeated message or a new attempt asks for.
      {&announce,
       "UPDATE tasks SET state=5, closed_at=?2, document='', event='', "
       "end=CASE reusable WHEN 1 THEN end ELSE x'' END, "
       "bytes=CASE reusable WHEN 1 THEN length(end) ELSE 0 END WHERE id=?1 AND state<5"},
      {&forget, absl::StrCat("DELETE FROM tasks WHERE id=?1 AND ", open)},
      {&forget_worker, "DELETE FROM tasks WHERE worker_id=?1 AND source='redis' AND state<4"},
      {&read_end, "SELECT end FROM tasks WHERE id=?1 AND length(end)>0"},
      {&find_concluded,
       absl::StrCat("SELECT ", ClosedColumns(), " FROM tasks WHERE id=?1 AND state>=4")},
      // Rows are in order of arrival, and the oldest closed ones are near the front.
      {&prune,
       "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE state=5 AND closed_at<=?1 "
       "ORDER BY id LIMIT ?2) RETURNING bytes, id, task_id"},
  };
  for (const auto& [statement, sql] : all) {
    ASSIGN_OR_RETURN(*statement, Prepare(sql));
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::sidecar
