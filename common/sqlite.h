// What the SQLite databases of this project share: handles that close themselves, and errors. Who
// includes it links SQLite.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "common/strings.h"

namespace flowmesh {

struct SqliteCloser {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using SqliteDatabase = std::unique_ptr<sqlite3, SqliteCloser>;
using SqliteStatement = std::unique_ptr<sqlite3_stmt, SqliteCloser>;

// Of the last call on `db`, which failed: `<what>: <SQLite's words>`. DataLoss: corrupt, or no
// database. ResourceExhausted: the disk is full. PermissionDenied: read-only, or not to be opened.
// Unavailable: another process holds it. Cancelled: a progress handler ended it. Internal:
// others.
inline absl::Status SqliteError(sqlite3* db, std::string_view what) {
  const std::string text = absl::StrCat(ToAbsl(what), ": ", sqlite3_errmsg(db));
  switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      return absl::PermissionDeniedError(text);
    case SQLITE_BUSY:
      return absl::UnavailableError(text);
    case SQLITE_INTERRUPT:
      return absl::CancelledError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace flowmesh
