// The journal's file in SQLite: one connection, its prepared statements, and what its rows mean.
// Only the journal includes this.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "common/sqlite.h"
#include "common/status.h"
#include "common/strings.h"
#include "sidecar/journal/journal.h"

namespace flowmesh::sidecar {

inline constexpr char kOpenStates[] = "state < 5";  // before JournalState::kAnnounced
inline constexpr int kPageBytes = 4096;
inline constexpr int kLogPages = 2048;  // so many in the log are moved into the file at once

// One connection and its prepared statements.
struct Journal::Database {
  SqliteDatabase db;
  SqliteStatement begin, commit, rollback, accept, dispatch, finish, conclude, announce, forget,
      forget_worker, read_end, find_concluded, prune;

  absl::Status Error(std::string_view what) const {
    return SqliteError(db.get(), absl::StrCat("journal: cannot ", ToAbsl(what)));
  }

  absl::Status Execute(const char* sql) const {
    return sqlite3_exec(db.get(), sql, nullptr, nullptr, nullptr) == SQLITE_OK ? absl::OkStatus()
                                                                               : Error("run");
  }

  absl::StatusOr<SqliteStatement> Prepare(const std::string& sql) const {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v3(db.get(), sql.c_str(), -1, SQLITE_PREPARE_PERSISTENT, &statement,
                           nullptr) != SQLITE_OK) {
      return Error("prepare");
    }
    return SqliteStatement(statement);
  }

  // Binds from the first parameter on.
  static void Bind(sqlite3_stmt*, int) {}
  template <typename... Rest>
  static void Bind(sqlite3_stmt* statement, int at, int64_t value, Rest&&... rest) {
    sqlite3_bind_int64(statement, at, value);
    Bind(statement, at + 1, std::forward<Rest>(rest)...);
  }
  struct Blob {
    const std::string& bytes;
  };
  template <typename... Rest>
  static void Bind(sqlite3_stmt* statement, int at, Blob blob, Rest&&... rest) {
    sqlite3_bind_blob64(statement, at, blob.bytes.data(), blob.bytes.size(), SQLITE_STATIC);
    Bind(statement, at + 1, std::forward<Rest>(rest)...);
  }
  // The text must live until the statement was run.
  template <typename... Rest>
  static void Bind(sqlite3_stmt* statement, int at, const std::string& text, Rest&&... rest) {
    sqlite3_bind_text64(statement, at, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
    Bind(statement, at + 1, std::forward<Rest>(rest)...);
  }

  template <typename... Values>
  absl::Status Run(const SqliteStatement& statement, Values&&... values) const {
    Bind(statement.get(), 1, std::forward<Values>(values)...);
    const int code = sqlite3_step(statement.get());
    absl::Status status =
        code == SQLITE_DONE || code == SQLITE_ROW ? absl::OkStatus() : Error("write");
    sqlite3_reset(statement.get());
    sqlite3_clear_bindings(statement.get());
    return status;
  }

  // Runs a statement and calls `row` for each row that it returns.
  absl::Status Each(const SqliteStatement& statement,
                    const std::function<void(sqlite3_stmt*)>& row) const {
    int code = SQLITE_DONE;
    while ((code = sqlite3_step(statement.get())) == SQLITE_ROW) row(statement.get());
    const absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error("read");
    sqlite3_reset(statement.get());
    return status;
  }

  // The same for a query that is used once.
  absl::Status Query(const std::string& sql, int64_t parameter,
                     const std::function<void(sqlite3_stmt*)>& row) const {
    ASSIGN_OR_RETURN(const SqliteStatement statement, Prepare(sql));
    if (sqlite3_bind_parameter_count(statement.get()) > 0) Bind(statement.get(), 1, parameter);
    return Each(statement, row);
  }

  // Opens the file, or makes it, with the mode 0600.
  absl::Status Open(const std::filesystem::path& file);
  // Once the tables are there.
  absl::Status PrepareAll();
};

// A column's text or bytes; empty for NULL.
std::string Text(sqlite3_stmt* row, int column);
JournalKeep KeepOf(sqlite3_stmt* row, int column);

// The columns that ReadTask reads, in its order.
inline constexpr char kTaskColumns[] =
    "id, task_id, worker_id, dispatched_at, source, attempt, fingerprint, received_at";
JournalTask ReadTask(sqlite3_stmt* row);

// The columns that ReadClosed reads, likewise.
std::string ClosedColumns();
JournalClosed ReadClosed(sqlite3_stmt* row);

}  // namespace flowmesh::sidecar
