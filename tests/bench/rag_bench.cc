// Embeds a file of texts, one a line: `rag_bench MODEL TEXTS THREADS [VECTORS]`. Prints the texts a
// second of the best of three passes; VECTORS gets them as lines of JSON.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/json.h"
#include "executors/model/sentence_encoder.h"

namespace flowmesh {
namespace {

int Main(int argc, char** argv) {
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
