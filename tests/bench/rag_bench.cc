// Embeds a file of texts, one a line: `rag_bench MODEL TEXTS THREADS [VECTORS]`. Prints the texts a
// second of the best of three passes; VECTORS gets them as lines of JSON. Or searches that many
// vectors around a thousand centres, as texts' vectors lie: `rag_bench search COUNT DIMENSION`.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "executors/model/sentence_encoder.h"
#include "executors/retrieval/store.h"

namespace flowmesh {
namespace {

using retrieval::Passage;
using retrieval::StoreQuery;

// Seconds of a search, the median of all queries; what it found goes into `ids`.
double Time(retrieval::Store& store, std::vector<StoreQuery> queries, int64_t most_exact,
            std::vector<std::set<int64_t>>* ids) {
  std::vector<double> seconds;
  for (StoreQuery& query : queries) {
    query.most_exact = most_exact;
    const absl::Duration begin = Clock::Real().Monotonic();
    const Json items = store.Search(query).value();
    seconds.push_back(absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin));
    std::set<int64_t>& found = ids->emplace_back();
    for (const Json& item : items) found.insert(item["id"].get<int64_t>());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

int Search(int64_t count, int64_t dimension) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    std::vector<float> vector(static_cast<size_t>(dimension));
    for (float& x : vector) x = normal(random);
    return vector;
  };
  std::vector<std::vector<float>> centres;
  for (int i = 0; i < 1000; ++i) centres.push_back(draw());
  const auto near_a_centre = [&] {
    std::vector<float> vector = draw();
    const std::vector<float>& centre = centres[random() % centres.size()];
    for (size_t i = 0; i < vector.size(); ++i) vector[i] = centre[i] + 0.7f * vector[i];
    return vector;
  };
  TempDir dir;
  const auto store = retrieval::Store::Open(dir / "store.db", "random", dimension).value();
  if (!store->Begin({.name = "random"}).ok()) return 1;
  for (int64_t done = 0; done < count;) {
    std::vector<Passage> batch;
    for (; batch.size() < 1000 && done < count; ++done) {
      batch.push_back({"passage", Json::object(), near_a_centre()});
    }
    if (!store->Append("random", batch).ok()) return 1;
  }
  std::vector<StoreQuery> queries;
  for (int i = 0; i < 200; ++i) queries.push_back({.vector = near_a_centre(), .limit = 10});
  std::vector<std::set<int64_t>> exact, graph, ignored;
  Time(*store, {queries[0]}, count, &ignored);  // loads the vectors
  const double exact_seconds = Time(*store, queries, count, &exact);
  const absl::Duration begin = Clock::Real().Monotonic();
  Time(*store, {queries[0]}, 0, &ignored);  // builds the graph
  std::printf("build\t%.1f\n", absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin));
  const double graph_seconds = Time(*store, queries, 0, &graph);
  size_t common = 0, all = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    all += exact[i].size();
    for (const int64_t id : exact[i]) common += graph[i].count(id);
  }
  std::printf("exact\t%.3f\ngraph\t%.3f\nrecall\t%.4f\n", exact_seconds * 1e3, graph_seconds * 1e3,
              static_cast<double>(common) / static_cast<double>(all));
  return 0;
}

int Main(int argc, char** argv) {
  if (argc == 4 && std::string(argv[1]) == "search") {
    return Search(std::stoll(argv[2]), std::stoll(argv[3]));
  }
  if (argc < 4) {
    std::fprintf(stderr, "usage: rag_bench MODEL TEXTS THREADS [VECTORS]\n");
    return 2;
  }
  at::set_num_threads(std::stoi(argv[3]));
  std::vector<std::string> texts;
  std::ifstream in(argv[2]);
  for (std::string line; std::getline(in, line);) texts.push_back(line);
  const auto encoder = model::SentenceEncoder::Load(argv[1]);
  if (!encoder.ok()) {
    std::fprintf(stderr, "%s\n", Message(encoder.status()).c_str());
    return 1;
  }
  at::Tensor vectors;
  double best = 0;
  for (int pass = 0; pass < 3; ++pass) {
    const absl::Duration begin = Clock::Real().Monotonic();
    vectors = (*encoder)->Embed(texts, [](size_t) { return true; }).value();
    const double seconds = absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin);
    best = std::max(best, static_cast<double>(texts.size()) / seconds);
  }
  std::printf("embed\t%.1f\n", best);
  if (argc < 5) return 0;
  std::ofstream out(argv[4]);
  const float* row = vectors.const_data_ptr<float>();
  for (size_t i = 0; i < texts.size(); ++i, row += vectors.size(1)) {
    out << DumpJson(std::vector<float>(row, row + vectors.size(1))) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace flowmesh

int main(int argc, char** argv) { return flowmesh::Main(argc, argv); }
