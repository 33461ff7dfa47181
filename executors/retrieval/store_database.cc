#include "executors/retrieval/store_database.h"

#include <map>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "executors/retrieval/unit_vector.h"

namespace flowmesh::retrieval {
namespace {

constexpr char kVersion[] = "1";
constexpr int kPatienceMs = 10000;  // for another process' write
constexpr int kPauseMs = 10;        // between tries
// The least cosine of one text's vectors by the same weights, on whatever device.
constexpr double kSameEncoder = 0.999;

constexpr char kSchema[] = R"sql(
  CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    stamp TEXT NOT NULL,
    digest TEXT NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0);
  CREATE TABLE passages (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES sources (id),
    vector BLOB NOT NULL,  -- float32 of length 1, as this machine stores them
    metadata TEXT NOT NULL,
    text TEXT NOT NULL);
  CREATE INDEX passages_of_source ON passages (source);
  CREATE VIRTUAL TABLE words USING fts5 (text, content='passages', content_rowid='id');
  CREATE TRIGGER passage_added AFTER INSERT ON passages BEGIN
    INSERT INTO words (rowid, text) VALUES (new.id, new.text);
  END;
  CREATE TRIGGER passage_removed AFTER DELETE ON passages BEGIN
    INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
  END;
)sql";

// What comes in until it is complete, beside the tables that are searched. Older stores lack them.
constexpr char kComingSchema[] = R"sql(
  CREATE TABLE IF NOT EXISTS coming_sources (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    stamp TEXT NOT NULL,
    digest TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS coming_passages (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES coming_sources (id),
    vector BLOB NOT NULL,
    metadata TEXT NOT NULL,
    text TEXT NOT NULL);
  CREATE INDEX IF NOT EXISTS coming_passages_of_source ON coming_passages (source);
)sql";

}  // namespace

absl::Status Store::Database::Execute(const char* sql) const {
  const int code = sqlite3_exec(db.get(), sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error();
}

absl::Status Store::Database::RunBound(const std::string& sql,
                                       const std::function<void(sqlite3_stmt*)>& bind,
                                       const Row& row) const {
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(db.get(), sql.c_str(), -1, &raw, nullptr);
  if (code != SQLITE_OK) return Error();
  const SqliteStatement statement(raw);
  bind(raw);
  while ((code = sqlite3_step(raw)) == SQLITE_ROW) {
    if (row) row(raw);
  }
  return code == SQLITE_DONE ? absl::OkStatus() : Error();
}

absl::Status Store::Database::CountChange() const {
  return Execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'revision'");
}

absl::Status Store::Database::InTransaction(const std::function<absl::Status()>& work,
                                            const char* begin) const {
  RETURN_IF_ERROR(Execute(begin));
  absl::Status status = work();
  if (status.ok()) status = Execute("COMMIT");
  if (!status.ok()) (void)Execute("ROLLBACK");
  return status;
}

absl::StatusOr<std::string> Store::Database::Meta(const std::string& key) const {
  std::string value;
  RETURN_IF_ERROR(Run(
      "SELECT value FROM meta WHERE key = ?1", [&](sqlite3_stmt* s) { value = Text(s, 0); }, key));
  return value;
}

absl::Status Store::Database::SetMeta(const std::string& key, const std::string& value) const {
  return Run("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", nullptr, key, value);
}

absl::Status Store::Database::ForgetComing(const std::string& name) const {
  RETURN_IF_ERROR(
      Run("DELETE FROM coming_passages WHERE source = (SELECT id FROM coming_sources WHERE name = "
          "?1)",
          nullptr, name));
  return Run("DELETE FROM coming_sources WHERE name = ?1", nullptr, name);
}

absl::Status Store::Database::IsGone() const {
  return absl::UnavailableError(absl::StrCat(
      path.string(), ": another ingestion of this source has taken the place of this one"));
}

absl::Status Store::Database::ForgetPassages(const std::string& name) const {
  RETURN_IF_ERROR(CountChange());
  return Run("DELETE FROM passages WHERE source = (SELECT id FROM sources WHERE name = ?1)",
             nullptr, name);
}

absl::StatusOr<std::optional<Source>> Store::Database::FindIn(const std::string& sql,
                                                              const std::string& name,
                                                              bool is_complete) const {
  std::optional<Source> source;
  RETURN_IF_ERROR(Run(
      sql,
      [&](sqlite3_stmt* s) {
        source = {.name = name,
                  .stamp = Text(s, 0),
                  .digest = Text(s, 1),
                  .is_complete = is_complete,
                  .passages = sqlite3_column_int64(s, 2),
                  .version = sqlite3_column_int64(s, 3)};
      },
      name));
  return source;
}

std::string Store::Database::Text(sqlite3_stmt* s, int column) {
  return std::string(static_cast<const char*>(sqlite3_column_blob(s, column)),
                     static_cast<size_t>(sqlite3_column_bytes(s, column)));
}

absl::Status Store::Database::SetUp() const {
  sqlite3_busy_timeout(db.get(), kPatienceMs);
  // SQLite itself does not always wait for another process that makes the log.
  const absl::Duration until = Clock::Real().Monotonic() + absl::Milliseconds(kPatienceMs);
  while (true) {
    const absl::Status status = Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL");
    if (!absl::IsUnavailable(status) || Clock::Real().Monotonic() >= until) return status;
    sqlite3_sleep(kPauseMs);
  }
}

absl::StatusOr<bool> Store::Database::HasTable(const std::string& name) const {
  bool has_it = false;
  RETURN_IF_ERROR(Run(
      "SELECT 1 FROM sqlite_master WHERE name = ?1", [&](sqlite3_stmt*) { has_it = true; }, name));
  return has_it;
}

absl::Status Store::Database::Initialise(const std::string& model, int64_t dimension) const {
  bool is_empty = true;
  RETURN_IF_ERROR(
      Run("SELECT 1 FROM sqlite_master LIMIT 1", [&](sqlite3_stmt*) { is_empty = false; }));
  if (is_empty) {
    RETURN_IF_ERROR(Execute(kSchema));
    RETURN_IF_ERROR(
        Run("INSERT INTO meta VALUES ('version', ?1), ('model', ?2), ('dimension', ?3), "
            "('revision', '0')",
            nullptr, std::string(kVersion), model, std::to_string(dimension)));
  }
  RETURN_IF_ERROR(CheckMade(model, dimension));
  return Execute(kComingSchema);
}

absl::Status Store::Database::CheckMade(const std::string& model, int64_t dimension) const {
  std::map<std::string, std::string> meta;
  const absl::Status read =
      Run("SELECT key, value FROM meta", [&](sqlite3_stmt* s) { meta[Text(s, 0)] = Text(s, 1); });
  if (!read.ok() || meta["version"] != kVersion) {
    return absl::DataLossError(
        absl::StrCat(path.string(), ": expected a store of this version, got another database"));
  }
  if (meta["model"] == model && meta["dimension"] == std::to_string(dimension)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      path.string(), ": the store was made with the model ", meta["model"], " (dimension ",
      meta["dimension"], "), not with ", model, " (dimension ", dimension, ")"));
}

absl::Status Store::Database::CompareEncoder(const std::string& known,
                                             const std::vector<float>& unit) const {
  const absl::StatusOr<Json> json = ParseJson(known);
  if (!json.ok() || !json->is_array() || json->size() != unit.size()) {
    return absl::DataLossError(
        absl::StrCat(path.string(), ": the store does not say what made it"));
  }
  const auto wanted = json->get<std::vector<float>>();
  if (Dot(wanted.data(), unit.data(), unit.size()) >= kSameEncoder) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string model, Meta("model"));
  return absl::FailedPreconditionError(absl::StrCat(path.string(),
                                                    ": the store was made with other weights of ",
                                                    model, ": use those, or make the store anew"));
}

}  // namespace flowmesh::retrieval
