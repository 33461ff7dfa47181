// Embeds a file of texts, one a line: `rag_bench MODEL TEXTS THREADS [VECTORS]`. Prints the texts a
// second of the best of three passes; VECTORS gets them as lines of JSON. Or searches that many
// vectors around a thousand centres, as texts' vectors lie: `rag_bench search COUNT DIMENSION`. Or
// brings that many passages into a store, of files of the texts over and over, and prints how many
// came in a second and the peak memory after 1,000 and after all: `rag_bench ingest MODEL TEXTS
// THREADS COUNT`.
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/files.h"
#include "common/json.h"
#include "executors/device/allocator.h"
#include "executors/model/sentence_encoder.h"
#include "executors/retrieval/ingest.h"
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
  const auto version = store->Begin({.name = "random"});
  if (!version.ok()) return 1;
  for (int64_t done = 0; done < count;) {
    std::vector<Passage> batch;
    for (; batch.size() < 1000 && done < count; ++done) {
      batch.push_back({"passage", Json::object(), near_a_centre()});
    }
    if (!store->Append(*version, batch).ok()) return 1;
  }
  if (!store->Complete(*version, "").ok()) return 1;
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

std::vector<std::string> Lines(const char* path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// In MB.
double PeakMemory() {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Ingest(const char* model, std::vector<std::string> texts, size_t count) {
  constexpr size_t kFirst = 1000;
  constexpr int64_t kTokens = 64;  // of a passage
  TempDir dir;
  std::mt19937 random(5);
  std::filesystem::create_directories(dir / "docs");
  // More than enough: a text has more than a fourth of a passage's tokens.
  for (size_t file = 0, lines = 0; lines < 4 * count; ++file) {
    std::shuffle(texts.begin(), texts.end(), random);
    std::ofstream out(dir / ("docs/" + std::to_string(file) + ".txt"));
    for (const std::string& text : texts) out << text << "\n";
    lines += texts.size();
  }
  const auto encoder = model::SentenceEncoder::Load(model).value();
  const auto store = retrieval::Store::Open(dir / "store.db", model, encoder->dimension()).value();
  size_t done = 0;
  double first_memory = 0;
  absl::Duration begin;
  const retrieval::Embedder embedder = {
      .embed = [&](const std::vector<std::string>& passages,
                   const auto& go_on) -> absl::StatusOr<std::vector<std::vector<float>>> {
        if (done >= kFirst && first_memory == 0) {
          first_memory = PeakMemory();
          begin = Clock::Real().Monotonic();
          std::printf("memory 1000\t%.0f\n", first_memory);
        }
        if (done >= count) return absl::CancelledError("enough");
        ASSIGN_OR_RETURN(const at::Tensor vectors, encoder->Embed(passages, go_on));
        done += passages.size();
        std::vector<std::vector<float>> rows(passages.size());
        const float* row = vectors.const_data_ptr<float>();
        for (auto& out : rows) {
          out.assign(row, row + vectors.size(1));
          row += vectors.size(1);
        }
        return rows;
      },
      .count_tokens =
          [&](std::string_view word) {
            return static_cast<int64_t>(encoder->tokenizer().Encode(word, false).size());
          },
      .dimension = encoder->dimension(),
      .max_tokens = encoder->max_tokens() - 2};
  const auto counts = retrieval::Ingest(
      {.sources = {(dir / "docs").string()}, .chunking = {.size = kTokens, .overlap = 8}}, embedder,
      *store, [](const std::string&, size_t, size_t) { return true; });
  if (!absl::IsCancelled(counts.status())) {
    std::fprintf(stderr, "%s\n", Message(counts.status()).c_str());
    return 1;
  }
  const double seconds = absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin);
  std::printf("memory\t%.0f\nmemory grew\t%.1f\npassages\t%zu\ningest\t%.1f\n", PeakMemory(),
              PeakMemory() - first_memory, done, static_cast<double>(done - kFirst) / seconds);
  return 0;
}

int Main(int argc, char** argv) {
  device::KeepFreedMemory();  // as the tasks do
  if (argc == 6 && std::string(argv[1]) == "ingest") {
    at::set_num_threads(std::stoi(argv[4]));
    return Ingest(argv[2], Lines(argv[3]), static_cast<size_t>(std::stoul(argv[5])));
  }
  if (argc == 4 && std::string(argv[1]) == "search") {
    return Search(std::stoll(argv[2]), std::stoll(argv[3]));
  }
  if (argc < 4) {
    std::fprintf(stderr, "usage: rag_bench MODEL TEXTS THREADS [VECTORS]\n");
    return 2;
  }
  at::set_num_threads(std::stoi(argv[3]));
  const std::vector<std::string> texts = Lines(argv[2]);
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
