#include "executors/retrieval/store.h"

#include <utility>

#include "executors/retrieval/store_database.h"
#include "executors/retrieval/unit_vector.h"

namespace flowmesh::retrieval {

namespace fs = std::filesystem;

namespace {

// While it lives, `is_stopped` ends statements of `db` between their steps.
class StopHandler {
 public:
  StopHandler(sqlite3* db, const std::function<bool()>& is_stopped) : db_(db) {
    if (!is_stopped) return;
    sqlite3_progress_handler(
        db, kStepsBetweenPolls,
        [](void* poll) -> int { return (*static_cast<const std::function<bool()>*>(poll))(); },
        const_cast<std::function<bool()>*>(&is_stopped));
  }
  ~StopHandler() { sqlite3_progress_handler(db_, 0, nullptr, nullptr); }
  StopHandler(const StopHandler&) = delete;
  StopHandler& operator=(const StopHandler&) = delete;

 private:
  static constexpr int kStepsBetweenPolls = 1000;  // of SQLite's machine: some 40 passages

  sqlite3* const db_;
};

}  // namespace

Store::Store(std::unique_ptr<Database> database, int64_t dimension)
    : database_(std::move(database)), dimension_(dimension) {}
Store::~Store() = default;

const fs::path& Store::path() const { return database_->path; }

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const fs::path& path, const std::string& model,
                                                   int64_t dimension) {
  auto database = std::make_unique<Database>();
  database->path = path;
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  database->db.reset(raw);
  if (code != SQLITE_OK) return database->Error();
  RETURN_IF_ERROR(database->SetUp());
  // What is there is only read: another process may be writing for longer than one would wait.
  ASSIGN_OR_RETURN(const bool is_made, database->HasTable("coming_passages"));
  RETURN_IF_ERROR(is_made ? database->CheckMade(model, dimension) : database->InTransaction([&] {
    return database->Initialise(model, dimension);
  }));
  return std::unique_ptr<Store>(new Store(std::move(database), dimension));
}

absl::Status Store::CheckEncoder(const std::vector<float>& vector) {
  const std::vector<float> unit = Unit(vector);
  ASSIGN_OR_RETURN(const std::string known, database_->Meta("encoder"));
  if (!known.empty()) return database_->CompareEncoder(known, unit);
  return database_->InTransaction([&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string first, database_->Meta("encoder"));
    if (!first.empty()) return database_->CompareEncoder(first, unit);
    return database_->SetMeta("encoder", DumpJson(Json(unit)));
  });
}

absl::StatusOr<std::optional<Source>> Store::Find(const std::string& name) {
  ASSIGN_OR_RETURN(
      const std::optional<Source> coming,
      database_->FindIn("SELECT stamp, digest, (SELECT count(*) FROM coming_passages WHERE source "
                        "= coming_sources.id), id FROM coming_sources WHERE name = ?1",
                        name, false));
  if (coming) return coming;
  return database_->FindIn(
      "SELECT stamp, digest, (SELECT count(*) FROM passages WHERE source = sources.id), 0 "
      "FROM sources WHERE name = ?1 AND complete = 1",
      name, true);
}

absl::StatusOr<std::vector<std::string>> Store::SourcesBelow(const fs::path& folder) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(database_->Run(
      "SELECT name FROM (SELECT name FROM sources UNION SELECT name FROM coming_sources) "
      "WHERE substr(name, 1, length(?1)) = ?1 ORDER BY name",
      [&](sqlite3_stmt* s) { names.push_back(Database::Text(s, 0)); }, (folder / "").string()));
  return names;
}

absl::StatusOr<int64_t> Store::Begin(const Source& source,
                                     const std::function<bool()>& is_stopped) {
  const StopHandler stop(database_->db.get(), is_stopped);
  RETURN_IF_ERROR(database_->InTransaction([&]() -> absl::Status {
    RETURN_IF_ERROR(database_->ForgetComing(source.name));
    // Under an id that nobody had before, so that whoever still adds to an older version fails.
    return database_->Run(
        "INSERT INTO coming_sources (id, name, stamp, digest) VALUES (random(), ?1, ?2, ?3)",
        nullptr, source.name, source.stamp, source.digest);
  }));
  return sqlite3_last_insert_rowid(database_->db.get());
}

absl::Status Store::Append(int64_t version, const std::vector<Passage>& passages) {
  return database_->InTransaction([&]() -> absl::Status {
    for (const Passage& passage : passages) {
      if (static_cast<int64_t>(passage.vector.size()) != dimension_) {
        return absl::InternalError("a passage's vector is not of the store's dimension");
      }
      RETURN_IF_ERROR(database_->Run(
          "INSERT INTO coming_passages (source, vector, metadata, text) "
          "SELECT id, ?2, ?3, ?4 FROM coming_sources WHERE id = ?1",
          nullptr, version, Unit(passage.vector), DumpJson(passage.metadata), passage.text));
      if (sqlite3_changes(database_->db.get()) == 0) return database_->IsGone();
    }
    return absl::OkStatus();
  });
}

absl::Status Store::Complete(int64_t version, const std::string& stamp,
                             const std::function<bool()>& is_stopped) {
  const StopHandler stop(database_->db.get(), is_stopped);
  return database_->InTransaction([&]() -> absl::Status {
    std::optional<std::string> name;
    RETURN_IF_ERROR(database_->Run(
        "SELECT name FROM coming_sources WHERE id = ?1",
        [&](sqlite3_stmt* s) { name = Database::Text(s, 0); }, version));
    if (!name) return database_->IsGone();
    RETURN_IF_ERROR(database_->ForgetPassages(*name));
    RETURN_IF_ERROR(database_->Run(
        "INSERT INTO sources (name, stamp, digest, complete) "
        "SELECT name, ?2, digest, 1 FROM coming_sources WHERE id = ?1 ON CONFLICT (name) "
        "DO UPDATE SET stamp = excluded.stamp, digest = excluded.digest, complete = 1",
        nullptr, version, stamp));
    RETURN_IF_ERROR(database_->Run(
        "INSERT INTO passages (source, vector, metadata, text) "
        "SELECT (SELECT id FROM sources WHERE name = ?1), vector, metadata, text FROM "
        "coming_passages WHERE source = ?2 ORDER BY id",
        nullptr, *name, version));
    return database_->ForgetComing(*name);
  });
}

absl::Status Store::Restamp(const std::string& source, const std::string& stamp) {
  return database_->Run("UPDATE sources SET stamp = ?2 WHERE name = ?1", nullptr, source, stamp);
}

absl::Status Store::Remove(const std::string& source, const std::function<bool()>& is_stopped) {
  const StopHandler stop(database_->db.get(), is_stopped);
  return database_->InTransaction([&]() -> absl::Status {
    RETURN_IF_ERROR(database_->ForgetComing(source));
    RETURN_IF_ERROR(database_->ForgetPassages(source));
    return database_->Run("DELETE FROM sources WHERE name = ?1", nullptr, source);
  });
}

absl::StatusOr<int64_t> Store::Count() {
  int64_t count = 0;
  RETURN_IF_ERROR(database_->Run("SELECT count(*) FROM passages",
                                 [&](sqlite3_stmt* s) { count = sqlite3_column_int64(s, 0); }));
  return count;
}

}  // namespace flowmesh::retrieval
