// Greedy decoding of a model in bfloat16 by this project's engine; peer_transformers.py is its
// peer. Prints name<TAB>value: load in seconds; by batch tokens per second (prefill included), peak
// memory so far in MB, and how many times the weights that is.
//
//   decode_bench MODEL IDS TOKENS BATCHES RUNS THREADS     (IDS and BATCHES joined by commas)
#include <ATen/Parallel.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/strings.h"
#include "executors/engine/engine.h"

namespace flowmesh {
namespace {

std::vector<int> Numbers(const std::string& joined) {
  std::vector<int> numbers;
  for (const std::string& part : SplitTrimmed(joined, ',')) numbers.push_back(std::stoi(part));
  return numbers;
}

double TokensPerSecond(engine::Engine& engine, const std::vector<int>& prompt, int batch,
                       int tokens) {
  engine::GenerationRequest request;
  request.prompt_ids.assign(prompt.begin(), prompt.end());
  request.params.greedy = true;
  request.params.max_tokens = tokens;
  const double begin = MonotonicSeconds();
  const auto completions = engine.Generate(std::vector(static_cast<size_t>(batch), request),
                                           [](const auto&) { return true; });
  const double seconds = MonotonicSeconds() - begin;
  for (const engine::Completion& completion : completions.value()) {
    if (completion.token_ids.size() != static_cast<size_t>(tokens)) {
      std::fprintf(stderr, "decode_bench: a completion ended early; choose another prompt\n");
      std::exit(1);
    }
  }
  return batch * tokens / seconds;
}

double PeakMegabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

int Main(char** argv) {
  const std::vector<int> prompt = Numbers(argv[2]);
  const int tokens = std::stoi(argv[3]), runs = std::stoi(argv[5]);
  at::set_num_threads(std::stoi(argv[6]));
  const double begin = MonotonicSeconds();
  auto model = model::LoadModel(argv[1], {.dtype = at::kBFloat16});
  if (!model.ok()) {
    std::fprintf(stderr, "decode_bench: %s\n", Message(model.status()).c_str());
    return 1;
  }
  std::printf("load\t%.3f\n", MonotonicSeconds() - begin);
  const auto engine = engine::Engine::Create(&*model, {});
  TokensPerSecond(*engine, prompt, 1, 4);
  const double weights = static_cast<double>(model->model->info().num_parameters) * 2 / (1 << 20);
  for (const int batch : Numbers(argv[4])) {
    std::vector<double> values;
    for (int i = 0; i < runs; ++i) {
      values.push_back(TokensPerSecond(*engine, prompt, batch, tokens));
    }
    std::nth_element(values.begin(), values.begin() + runs / 2, values.end());
    std::printf("batch %d\t%.2f\n", batch, values[static_cast<size_t>(runs) / 2]);
    const double peak = PeakMegabytes();
    std::printf("memory %d\t%.0f\nmemory over weights %d\t%.2f\n", batch, peak, batch,
                peak / weights);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace flowmesh

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: decode_bench MODEL IDS TOKENS BATCHES RUNS THREADS\n");
    return 2;
  }
  return flowmesh::Main(argv);
}
