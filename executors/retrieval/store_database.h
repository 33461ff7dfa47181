// The SQLite file of a store: statements, and what its tables are. Of Store alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/sqlite.h"
#include "common/status.h"
#include "executors/retrieval/store.h"

namespace flowmesh::retrieval {

struct Store::Database {
  std::filesystem::path path;
  SqliteDatabase db;

  absl::Status Error() const { return SqliteError(db.get(), path.string()); }

  absl::Status Execute(const char* sql) const;

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
                        const Row& row) const;

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

  // `begin`: a plain BEGIN is enough for `work` that only reads.
  absl::Status InTransaction(const std::function<absl::Status()>& work,
                             const char* begin = "BEGIN IMMEDIATE") const;

  static std::string Text(sqlite3_stmt* s, int column);

  // Whoever reads waits for no writer from here on, and writers for each other.
  absl::Status SetUp() const;
  absl::StatusOr<bool> HasTable(const std::string& name) const;
  // Makes the tables that are missing.
  absl::Status Initialise(const std::string& model, int64_t dimension) const;
  // Compares what the store says of itself with what is wanted.
  absl::Status CheckMade(const std::string& model, int64_t dimension) const;
  // `known`: what CheckEncoder was given when the store was made.
  absl::Status CompareEncoder(const std::string& known, const std::vector<float>& unit) const;

  // Empty: there is none.
  absl::StatusOr<std::string> Meta(const std::string& key) const;
  absl::Status SetMeta(const std::string& key, const std::string& value) const;

  // Of each transaction that adds or removes passages: ids alone do not tell, SQLite gives those of
  // removed rows again.
  absl::Status CountChange() const;
  absl::StatusOr<std::optional<Source>> FindIn(const std::string& sql, const std::string& name,
                                               bool is_complete) const;
  // The version of a source that has begun.
  absl::Status ForgetComing(const std::string& name) const;
  absl::Status ForgetPassages(const std::string& name) const;  // of the complete one
  absl::Status IsGone() const;                                 // of one that had begun
};

}  // namespace flowmesh::retrieval
