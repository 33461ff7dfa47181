#include "executors/retrieval/graph_index.h"

// Defines functions that are not inline: in this file only.
#include <hnswlib/hnswlib.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "absl/strings/str_cat.h"

namespace flowmesh::retrieval {
namespace {

constexpr size_t kLinks = 16;             // of a point in each layer
constexpr size_t kBuildCandidates = 200;  // that a new point's links are chosen from
constexpr size_t kLeastCandidates = 64;   // of a search

}  // namespace

struct GraphIndex::Graph {
  explicit Graph(int64_t dimension) : space(static_cast<size_t>(dimension)) {}

  hnswlib::InnerProductSpace space;
  std::unique_ptr<hnswlib::HierarchicalNSW<float>> points;
};

GraphIndex::GraphIndex(std::unique_ptr<Graph> graph) : graph_(std::move(graph)) {}
GraphIndex::~GraphIndex() = default;

absl::StatusOr<std::unique_ptr<GraphIndex>> GraphIndex::Build(
    const std::vector<int64_t>& ids, const std::vector<float>& vectors, int64_t dimension,
    const std::function<bool()>& is_stopped) {
  auto graph = std::make_unique<Graph>(dimension);
  try {
    graph->points = std::make_unique<hnswlib::HierarchicalNSW<float>>(&graph->space, ids.size(),
                                                                      kLinks, kBuildCandidates);
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat("no index: ", error.what()));
  }
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false, stopped = false;
  const auto work = [&](bool is_caller) {
    try {
      for (size_t i = next++; i < ids.size() && !failed && !stopped; i = next++) {
        if (is_caller && is_stopped && is_stopped()) stopped = true;
        graph->points->addPoint(vectors.data() + i * static_cast<size_t>(dimension),
                                static_cast<size_t>(ids[i]));
      }
    } catch (const std::exception&) {
      failed = true;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) {
    threads.emplace_back(work, false);
  }
  work(true);
  for (std::thread& thread : threads) thread.join();
  if (failed) return absl::ResourceExhaustedError("no index: not enough memory");
  if (stopped) return absl::CancelledError("stopped");
  return std::unique_ptr<GraphIndex>(new GraphIndex(std::move(graph)));
}

absl::StatusOr<std::unique_ptr<GraphIndex>> GraphIndex::Open(const std::filesystem::path& path,
                                                             int64_t dimension) {
  auto graph = std::make_unique<Graph>(dimension);
  try {
    graph->points = std::make_unique<hnswlib::HierarchicalNSW<float>>(&graph->space, path.string());
  } catch (const std::exception& error) {
    return absl::DataLossError(absl::StrCat(path.string(), ": ", error.what()));
  }
  return std::unique_ptr<GraphIndex>(new GraphIndex(std::move(graph)));
}

absl::Status GraphIndex::Save(const std::filesystem::path& path) const {
  try {
    graph_->points->saveIndex(path.string());
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat(path.string(), ": ", error.what()));
  }
  return absl::OkStatus();
}

std::vector<int64_t> GraphIndex::Nearest(const std::vector<float>& query, size_t count) {
  graph_->points->setEf(std::max(kLeastCandidates, count * 2));
  auto found = graph_->points->searchKnn(query.data(), count);
  std::vector<int64_t> ids;
  for (; !found.empty(); found.pop()) ids.push_back(static_cast<int64_t>(found.top().second));
  return ids;
}

}  // namespace flowmesh::retrieval
