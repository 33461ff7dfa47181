#include "executors/retrieval/store.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/log.h"
#include "common/sqlite.h"
#include "executors/retrieval/filter.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;

constexpr char kVersion[] = "1";
constexpr double kFusion = 60;        // of reciprocal rank fusion
constexpr size_t kLeastOfAList = 50;  // candidates that each list gives to the fusion
constexpr int kPatienceMs = 10000;    // for another process' write
constexpr int kPauseMs = 10;          // between tries
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

std::vector<float> Unit(std::vector<float> vector) {
  double sum = 0;
  for (const float x : vector) sum += static_cast<double>(x) * x;
  const double length = std::max(std::sqrt(sum), 1e-12);
  for (float& x : vector) x = static_cast<float>(x / length);
  return vector;
}

// Many sums at a time, so that the compiler may use the widest registers there are.
float Dot(const float* a, const float* b, size_t n) {
  float sums[16] = {};
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (size_t k = 0; k < 16; ++k) sums[k] += a[i + k] * b[i + k];
  }
  float sum = 0;
  for (const float s : sums) sum += s;
  for (; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// The words of a text as a query in which any may occur. FTS5 has a language of its own: each word
// is quoted.
std::string AnyWord(const std::string& text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text + " ") {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(absl::StrCat("\"", word, "\""));
      word.clear();
    }
  }
  return absl::StrJoin(words, " OR ");
}

}  // namespace

struct Store::Database {
  fs::path path;
  SqliteDatabase db;

  absl::Status Error() const { return SqliteError(db.get(), path.string()); }

  absl::Status Execute(const char* sql) const {
    const int code = sqlite3_exec(db.get(), sql, nullptr, nullptr, nullptr);
    return code == SQLITE_OK ? absl::OkStatus() : Error();
  }

  static void BindOne(sqlite3_stmt* s, int at, const std::string& text) {
    sqlite3_bind_text64(s, at, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  }
  static void BindOne(sqlite3_stmt* s, int at, int64_t value) { sqlite3_bind_int64(s, at, value); }
  static void BindOne(sqlite3_stmt* s, int at, const std::vector<float>& vector) {
    sqlite3_bind_blob64(s, at, vector.data(), vector.size() * sizeof(float), SQLITE_TRANSIENT);
  }
  static void BindOne(sqlite3_stmt* s, int at, const Json& value) {
    if (value.is_string()) {
      BindOne(s, at, value.get<std::string>());
    } else if (value.is_number_float()) {
      sqlite3_bind_double(s, at, value.get<double>());
    } else {
      sqlite3_bind_int64(s, at, value.is_boolean() ? value.get<bool>() : value.get<int64_t>());
    }
  }

  using Row = std::function<void(sqlite3_stmt*)>;

  absl::Status RunBound(const std::string& sql, const std::function<void(sqlite3_stmt*)>& bind,
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

  // Runs a statement with its parameters bound from the first on.
  template <typename... Values>
  absl::Status Run(const std::string& sql, const Row& row, const Values&... values) const {
    return RunBound(
        sql,
        [&]([[maybe_unused]] sqlite3_stmt* s) {  // without values
          int at = 0;
          (BindOne(s, ++at, values), ...);
        },
        row);
  }

  // Of each transaction that adds or removes passages: ids alone do not tell, SQLite gives those of
  // removed rows again.
  absl::Status CountChange() const {
    return Execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'revision'");
  }

  // `begin`: a plain BEGIN is enough for `work` that only reads.
  absl::Status InTransaction(const std::function<absl::Status()>& work,
                             const char* begin = "BEGIN IMMEDIATE") const {
    RETURN_IF_ERROR(Execute(begin));
    absl::Status status = work();
    if (status.ok()) status = Execute("COMMIT");
    if (!status.ok()) (void)Execute("ROLLBACK");
    return status;
  }

  // Empty: there is none.
  absl::StatusOr<std::string> Meta(const std::string& key) const {
    std::string value;
    RETURN_IF_ERROR(Run(
        "SELECT value FROM meta WHERE key = ?1", [&](sqlite3_stmt* s) { value = Text(s, 0); },
        key));
    return value;
  }

  absl::Status SetMeta(const std::string& key, const std::string& value) const {
    return Run("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", nullptr, key, value);
  }

  // The version of a source that has begun.
  absl::Status ForgetComing(const std::string& name) const {
    RETURN_IF_ERROR(Run(
        "DELETE FROM coming_passages WHERE source = (SELECT id FROM coming_sources WHERE name = "
        "?1)",
        nullptr, name));
    return Run("DELETE FROM coming_sources WHERE name = ?1", nullptr, name);
  }

  // Of a version that has begun.
  absl::Status IsGone() const {
    return absl::UnavailableError(absl::StrCat(
        path.string(), ": another ingestion of this source has taken the place of this one"));
  }

  absl::Status ForgetPassages(const std::string& name) const {
    RETURN_IF_ERROR(CountChange());
    return Run("DELETE FROM passages WHERE source = (SELECT id FROM sources WHERE name = ?1)",
               nullptr, name);
  }

  absl::StatusOr<std::optional<Source>> FindIn(const std::string& sql, const std::string& name,
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

  static std::string Text(sqlite3_stmt* s, int column) {
    return std::string(static_cast<const char*>(sqlite3_column_blob(s, column)),
                       static_cast<size_t>(sqlite3_column_bytes(s, column)));
  }

  // SQLite itself does not always wait for another process that makes the log.
  absl::Status UseLog() const {
    const absl::Duration until = Clock::Real().Monotonic() + absl::Milliseconds(kPatienceMs);
    while (true) {
      const absl::Status status = Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL");
      if (!absl::IsUnavailable(status) || Clock::Real().Monotonic() >= until) return status;
      sqlite3_sleep(kPauseMs);
    }
  }

  absl::StatusOr<bool> HasTable(const std::string& name) const {
    bool has_it = false;
    RETURN_IF_ERROR(Run(
        "SELECT 1 FROM sqlite_master WHERE name = ?1", [&](sqlite3_stmt*) { has_it = true; },
        name));
    return has_it;
  }

  // Makes the tables that are missing.
  absl::Status Initialise(const std::string& model, int64_t dimension) const {
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

  // Compares what the store says of itself with what is wanted.
  absl::Status CheckMade(const std::string& model, int64_t dimension) const {
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

  // `known`: what CheckEncoder was given when the store was made.
  absl::Status CompareEncoder(const std::string& known, const std::vector<float>& unit) const {
    const absl::StatusOr<Json> json = ParseJson(known);
    if (!json.ok() || !json->is_array() || json->size() != unit.size()) {
      return absl::DataLossError(
          absl::StrCat(path.string(), ": the store does not say what made it"));
    }
    const auto wanted = json->get<std::vector<float>>();
    if (Dot(wanted.data(), unit.data(), unit.size()) >= kSameEncoder) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string model, Meta("model"));
    return absl::FailedPreconditionError(
        absl::StrCat(path.string(), ": the store was made with other weights of ", model,
                     ": use those, or make the store anew"));
  }
};

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
  sqlite3_busy_timeout(raw, kPatienceMs);
  RETURN_IF_ERROR(database->UseLog());
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

absl::StatusOr<int64_t> Store::Begin(const Source& source) {
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

absl::Status Store::Complete(int64_t version, const std::string& stamp) {
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

absl::Status Store::Remove(const std::string& source) {
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

absl::Status Store::LoadVectors() {
  std::string revision;
  ASSIGN_OR_RETURN(revision, database_->Meta("revision"));
  if (revision == revision_) return absl::OkStatus();
  revision_.clear();
  ids_.clear();
  vectors_.clear();
  graph_.reset();
  bool is_whole = true;
  RETURN_IF_ERROR(
      database_->Run("SELECT id, vector FROM passages ORDER BY id", [&](sqlite3_stmt* s) {
        const auto bytes = static_cast<size_t>(sqlite3_column_bytes(s, 1));
        if (bytes != static_cast<size_t>(dimension_) * sizeof(float)) {
          is_whole = false;
          return;
        }
        ids_.push_back(sqlite3_column_int64(s, 0));
        vectors_.resize(vectors_.size() + static_cast<size_t>(dimension_));
        std::memcpy(vectors_.data() + vectors_.size() - dimension_, sqlite3_column_blob(s, 1),
                    bytes);
      }));
  if (!is_whole) {
    return absl::DataLossError(
        absl::StrCat(database_->path.string(), ": a vector is not of the store's dimension"));
  }
  revision_ = std::move(revision);
  return absl::OkStatus();
}

absl::Status Store::LoadGraph(const std::function<bool()>& is_stopped) {
  if (graph_ != nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string known, database_->Meta("graph"));
  const fs::path file = database_->path.string() + ".hnsw";
  const absl::StatusOr<std::string> digest = Sha256OfFile(file);
  if (digest.ok() && known == absl::StrCat(revision_, " ", *digest)) {
    ASSIGN_OR_RETURN(graph_, GraphIndex::Open(file, dimension_));
    graph_is_kept_ = true;
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(graph_, GraphIndex::Build(ids_, vectors_, dimension_, is_stopped));
  graph_is_kept_ = false;
  return absl::OkStatus();
}

absl::Status Store::KeepGraph() {
  graph_is_kept_ = true;  // one that cannot be is not tried again and again
  const fs::path file = database_->path.string() + ".hnsw";
  RemoveDotNames(file);
  const fs::path temporary = DotName(file);
  RETURN_IF_ERROR(graph_->Save(temporary));
  ASSIGN_OR_RETURN(const std::string written, Sha256OfFile(temporary));
  std::error_code error;
  fs::rename(temporary, file, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat(file.string(), ": ", error.message()));
  }
  return database_->SetMeta("graph", absl::StrCat(revision_, " ", written));
}

std::vector<Store::Scored> Store::Nearest(const std::vector<float>& unit,
                                          const std::vector<int64_t>* allowed, size_t limit) const {
  std::vector<Scored> scored;
  const auto width = static_cast<size_t>(dimension_);
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (allowed && !std::binary_search(allowed->begin(), allowed->end(), ids_[i])) continue;
    scored.push_back({ids_[i], Dot(vectors_.data() + i * width, unit.data(), width)});
  }
  const auto better = [](const Scored& a, const Scored& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  };
  limit = std::min(limit, scored.size());
  std::partial_sort(scored.begin(), scored.begin() + static_cast<ptrdiff_t>(limit), scored.end(),
                    better);
  scored.resize(limit);
  return scored;
}

absl::StatusOr<std::vector<Store::Scored>> Store::ByWords(const std::string& text,
                                                          const std::vector<int64_t>* allowed,
                                                          size_t limit) {
  std::vector<Scored> found;
  const std::string query = AnyWord(text);
  if (query.empty()) return found;
  RETURN_IF_ERROR(database_->Run(
      "SELECT rowid, bm25(words) FROM words WHERE words MATCH ?1 ORDER BY 2, 1",
      [&](sqlite3_stmt* s) {
        const int64_t id = sqlite3_column_int64(s, 0);
        if (found.size() >= limit) return;
        if (allowed && !std::binary_search(allowed->begin(), allowed->end(), id)) return;
        found.push_back({id, -sqlite3_column_double(s, 1)});
      },
      query));
  return found;
}

absl::StatusOr<std::vector<int64_t>> Store::Matching(const Json& filter) {
  const SqlCondition condition = ToSql(filter);
  std::vector<int64_t> ids;
  RETURN_IF_ERROR(database_->RunBound(
      absl::StrCat("SELECT id FROM passages WHERE ", condition.text, " ORDER BY id"),
      [&](sqlite3_stmt* s) {
        for (size_t i = 0; i < condition.values.size(); ++i) {
          Database::BindOne(s, static_cast<int>(i) + 1, condition.values[i]);
        }
      },
      [&](sqlite3_stmt* s) { ids.push_back(sqlite3_column_int64(s, 0)); }));
  return ids;
}

std::optional<double> Store::CosineOf(int64_t id, const std::vector<float>& unit) const {
  const auto found = std::lower_bound(ids_.begin(), ids_.end(), id);
  if (found == ids_.end() || *found != id) return std::nullopt;
  return Dot(vectors_.data() + (found - ids_.begin()) * dimension_, unit.data(), unit.size());
}

std::optional<std::vector<Store::Scored>> Store::Rank(const std::vector<int64_t>& ids,
                                                      const std::vector<float>& unit) const {
  std::vector<Scored> ranked;
  for (const int64_t id : ids) {
    const std::optional<double> cosine = CosineOf(id, unit);
    if (!cosine) return std::nullopt;
    ranked.push_back({id, *cosine});
  }
  std::sort(ranked.begin(), ranked.end(), [](const Scored& a, const Scored& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  });
  return ranked;
}

absl::StatusOr<Json> Store::Items(const std::vector<Scored>& found) {
  Json items = Json::array();
  for (const Scored& one : found) {
    absl::StatusOr<Json> metadata = absl::DataLossError("a passage is gone");
    std::string text;
    RETURN_IF_ERROR(database_->Run(
        "SELECT text, metadata FROM passages WHERE id = ?1",
        [&](sqlite3_stmt* s) {
          text = Database::Text(s, 0);
          metadata = ParseJson(Database::Text(s, 1));
        },
        one.id));
    RETURN_IF_ERROR(metadata.status());
    Json payload = {{"text", ""}};  // stands first
    payload.update(*metadata);
    payload["text"] = std::move(text);
    items.push_back({{"id", one.id}, {"score", one.score}, {"payload", std::move(payload)}});
  }
  return items;
}

absl::StatusOr<Json> Store::Search(const StoreQuery& query) {
  Json items;
  // In one transaction, which sees nothing of what others write meanwhile.
  RETURN_IF_ERROR(database_->InTransaction(
      [&]() -> absl::Status {
        ASSIGN_OR_RETURN(items, SearchNow(query));
        return absl::OkStatus();
      },
      "BEGIN"));
  if (graph_ != nullptr && !graph_is_kept_) {
    const absl::Status kept = KeepGraph();
    if (!kept.ok()) LogWarning("the index of a store is not kept: {}", Message(kept));
  }
  return items;
}

absl::StatusOr<Json> Store::SearchNow(const StoreQuery& query) {
  RETURN_IF_ERROR(LoadVectors());
  if (query.is_stopped && query.is_stopped()) return absl::CancelledError("stopped");
  const std::vector<float> unit = Unit(query.vector);
  std::vector<int64_t> matching;
  const bool is_filtered = query.filter.is_object() && !query.filter.empty();
  if (is_filtered) {
    ASSIGN_OR_RETURN(matching, Matching(query.filter));
  }
  const std::vector<int64_t>* allowed = is_filtered ? &matching : nullptr;
  const auto limit = static_cast<size_t>(query.limit);
  const size_t candidates = query.hybrid ? std::max(kLeastOfAList, limit) : limit;
  std::optional<std::vector<Scored>> near;
  if (!is_filtered && static_cast<int64_t>(ids_.size()) > query.most_exact) {
    RETURN_IF_ERROR(LoadGraph(query.is_stopped));
    near = Rank(graph_->Nearest(unit, candidates), unit);
  }
  std::vector<Scored> found = near ? *std::move(near) : Nearest(unit, allowed, candidates);
  if (query.hybrid) {
    ASSIGN_OR_RETURN(const std::vector<Scored> words, ByWords(query.text, allowed, candidates));
    std::map<int64_t, double> fused;
    for (const std::vector<Scored>& list : {found, words}) {
      for (size_t rank = 0; rank < list.size(); ++rank) {
        fused[list[rank].id] += 1 / (kFusion + static_cast<double>(rank) + 1);
      }
    }
    found.clear();
    for (const auto& [id, score] : fused) found.push_back({id, score});
    std::stable_sort(found.begin(), found.end(),
                     [](const Scored& a, const Scored& b) { return a.score > b.score; });
  }
  if (query.threshold) {
    std::erase_if(found, [&](const Scored& one) {
      const std::optional<double> cosine = CosineOf(one.id, unit);
      return !cosine || *cosine < *query.threshold;
    });
  }
  if (found.size() > limit) found.resize(limit);
  return Items(found);
}

}  // namespace flowmesh::retrieval
