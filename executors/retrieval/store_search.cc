// How a store is searched.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <functional>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/files.h"
#include "common/log.h"
#include "executors/retrieval/filter.h"
#include "executors/retrieval/store.h"
#include "executors/retrieval/store_database.h"
#include "executors/retrieval/unit_vector.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;

constexpr double kFusion = 60;        // of reciprocal rank fusion
constexpr size_t kLeastOfAList = 50;  // candidates that each list gives to the fusion

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
