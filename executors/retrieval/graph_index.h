// An approximate index of many vectors: a navigable graph (HNSW) that is kept in a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "common/status.h"

namespace flowmesh::retrieval {

// Immutable. One thread at a time.
class GraphIndex {
 public:
  // Of one vector of length 1 for each id, one after another, on all cores. `is_stopped` is polled
  // from this thread; may be null. ResourceExhausted: no memory. Cancelled.
  static absl::StatusOr<std::unique_ptr<GraphIndex>> Build(const std::vector<int64_t>& ids,
                                                           const std::vector<float>& vectors,
                                                           int64_t dimension,
                                                           const std::function<bool()>& is_stopped);
  // One that Save has written, whole: a damaged file is not told from a good one.
  static absl::StatusOr<std::unique_ptr<GraphIndex>> Open(const std::filesystem::path& path,
                                                          int64_t dimension);
  ~GraphIndex();

  absl::Status Save(const std::filesystem::path& path) const;
  // The ids of about the nearest `count` by inner product, in no order.
  std::vector<int64_t> Nearest(const std::vector<float>& query, size_t count);

 private:
  struct Graph;
  explicit GraphIndex(std::unique_ptr<Graph> graph);

  const std::unique_ptr<Graph> graph_;
};

}  // namespace flowmesh::retrieval
