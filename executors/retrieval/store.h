// Passages with their vectors in one SQLite file, which is searched here: by vector, by words
// (BM25), or by both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/retrieval/graph_index.h"

namespace flowmesh::retrieval {

struct Passage {
  std::string text;
  Json metadata;              // a map
  std::vector<float> vector;  // of the store's dimension
};

// A document as it was when it came in.
struct Source {
  std::string name;         // path or URL
  std::string stamp;        // another one when the content may be
  std::string digest;       // of the content, and of how it was cut
  bool is_complete = true;  // all passages are in
  int64_t passages = 0;
  int64_t version = 0;  // of what has begun: its id
};

struct StoreQuery {
  std::vector<float> vector;
  std::string text;  // for the words
  int64_t limit = 5;
  bool hybrid = false;              // also by words; the ranks are fused
  std::optional<double> threshold;  // the least cosine of what is found
  // Without a filter, a store of more passages is searched through its graph, which finds nearly
  // all of the nearest in a fraction of the time; else all vectors are compared.
  int64_t most_exact = 20000;
  // Of the metadata, as CheckFilter has found right.
  Json filter = Json::object();
  // Polled, above all while a graph is made; may be null.
  std::function<bool()> is_stopped;
};

// Each change is a transaction: what was written survives a crash, what was not is absent. One
// thread at a time; other processes may read and write meanwhile. Changes that take long with many
// passages poll `is_stopped`, which may be null: Cancelled, and nothing has changed.
class Store {
 public:
  // Opens or creates it. FailedPrecondition: made with another model or dimension. DataLoss: no
  // store, or a damaged one. Others: the disk. All name the file. Waits for no other process that
  // writes, unless tables are missing.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::filesystem::path& path,
                                                     const std::string& model, int64_t dimension);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // `vector`: the encoder's of a text that is always the same. FailedPrecondition: the store was
  // made with an encoder that gives another one, of other weights under the same name.
  absl::Status CheckEncoder(const std::vector<float>& vector);

  // The newest version of it: one that has begun, else the complete one.
  absl::StatusOr<std::optional<Source>> Find(const std::string& name);
  // The names of the sources below a folder, complete or begun.
  absl::StatusOr<std::vector<std::string>> SourcesBelow(const std::filesystem::path& folder);
  // From here on a new version of `source` is there, incomplete, without passages, in place of one
  // that had begun. It is not searched, an older complete one is. Returns its id.
  absl::StatusOr<int64_t> Begin(const Source& source,
                                const std::function<bool()>& is_stopped = nullptr);
  // More passages of a version that has begun, behind those that it has. Unavailable: it is not
  // there any more.
  absl::Status Append(int64_t version, const std::vector<Passage>& passages);
  // The version that has begun is complete and takes the older one's place. Unavailable: as above.
  absl::Status Complete(int64_t version, const std::string& stamp,
                        const std::function<bool()>& is_stopped = nullptr);
  // The content of the complete version is the same under a new stamp.
  absl::Status Restamp(const std::string& source, const std::string& stamp);
  absl::Status Remove(const std::string& source, const std::function<bool()>& is_stopped = nullptr);

  // The best passages, best first: a list of {id, score, payload: {text, metadata...}}. The score
  // is the cosine, in a hybrid search the sum of 1 / (60 + rank) over both lists. Sees the store as
  // it is at one moment. Cancelled: `is_stopped`.
  absl::StatusOr<Json> Search(const StoreQuery& query);
  absl::StatusOr<int64_t> Count();  // of all passages
  const std::filesystem::path& path() const;

 private:
  struct Database;
  struct Scored {
    int64_t id = 0;
    double score = 0;
  };

  Store(std::unique_ptr<Database> database, int64_t dimension);

  // Makes vectors_ those of the passages as they are now, which another process may have changed.
  absl::Status LoadVectors();
  absl::StatusOr<Json> SearchNow(const StoreQuery& query);
  // Makes `graph_` that of the passages as they are: from its file beside the store, else anew.
  absl::Status LoadGraph(const std::function<bool()>& is_stopped);
  // Writes a graph that was made into that file, for the next process.
  absl::Status KeepGraph();
  // `allowed`: sorted ids; null: all. Exact among them.
  std::vector<Scored> Nearest(const std::vector<float>& unit, const std::vector<int64_t>* allowed,
                              size_t limit) const;
  absl::StatusOr<std::vector<Scored>> ByWords(const std::string& text,
                                              const std::vector<int64_t>* allowed, size_t limit);
  absl::StatusOr<std::vector<int64_t>> Matching(const Json& filter);
  // Nothing: not all of `ids` are there.
  std::optional<std::vector<Scored>> Rank(const std::vector<int64_t>& ids,
                                          const std::vector<float>& unit) const;
  // Nothing: there is no passage of that id.
  std::optional<double> CosineOf(int64_t id, const std::vector<float>& unit) const;
  absl::StatusOr<Json> Items(const std::vector<Scored>& found);

  const std::unique_ptr<Database> database_;
  const int64_t dimension_;
  // What was loaded, of the passages as they were at that count of changes; empty: nothing.
  std::string revision_;
  // All vectors of length 1, by ids in ascending order.
  std::vector<int64_t> ids_;
  std::vector<float> vectors_;
  std::unique_ptr<GraphIndex> graph_;  // null: not loaded
  bool graph_is_kept_ = false;         // in its file, as far as that could be done
};

}  // namespace flowmesh::retrieval
