#include "executors/engine/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "executors/engine/random.h"
#include "executors/kernels/argmax.h"

namespace flowmesh::engine {
namespace {

constexpr float kDropped = -std::numeric_limits<float>::infinity();

struct Candidate {
  float logit = 0;
  text::TokenId id = 0;
};

// Most likely first, the lower id on ties.
bool IsBefore(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Drops what is below the k-th largest logit; ties with it stay.
void KeepTopK(std::span<float> logits, int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(logits.size())) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  const float least = sorted[static_cast<size_t>(k - 1)];
  for (float& logit : logits) {
    if (logit < least) logit = kDropped;
  }
}

// The sum of exp(logit - highest) over all.
double TotalWeight(std::span<const Candidate> candidates, float highest) {
  double total = 0;
  for (const Candidate& c : candidates) total += std::exp(c.logit - highest);
  return total;
}

// Dropping from the least likely upwards while the running sum is at most 1 - top_p leaves those
// tokens before which, from the most likely downwards, less than top_p was seen. Few tokens hold
// most of the weight, so only as many as needed are sorted.
void KeepTopP(std::vector<Candidate>& candidates, double top_p) {
  if (top_p >= 1) return;
  const float highest = std::min_element(candidates.begin(), candidates.end(), IsBefore)->logit;
  const double wanted = top_p * TotalWeight(candidates, highest);
  double seen = 0;
  size_t kept = 0;
  for (size_t sorted = 0, step = 64; sorted < candidates.size(); step *= 8) {
    const size_t end = std::min(candidates.size(), sorted + step);
    std::partial_sort(candidates.begin() + static_cast<ptrdiff_t>(sorted),
                      candidates.begin() + static_cast<ptrdiff_t>(end), candidates.end(), IsBefore);
    for (; kept < end && (kept == 0 || seen < wanted); ++kept) {
      seen += std::exp(candidates[kept].logit - highest);
    }
    if (kept < end) break;
    sorted = end;
  }
  candidates.resize(kept);
}

text::TokenId Draw(std::span<const Candidate> candidates, double uniform) {
  float highest = kDropped;
  for (const Candidate& c : candidates) highest = std::max(highest, c.logit);
  double left = uniform * TotalWeight(candidates, highest);
  for (const Candidate& c : candidates) {
    left -= std::exp(c.logit - highest);
    if (left < 0) return c.id;
  }
  return candidates.back().id;  // rounding left a crumb
}

}  // namespace

struct Sampler::State {
  SamplingParams params;
  Random random;
  std::unordered_set<text::TokenId> seen;                    // in prompt or completion
  std::unordered_map<text::TokenId, int64_t> in_completion;  // how often

  void Penalise(std::span<float> logits) const;
  text::TokenId Sample(std::span<float> logits);
};

void Sampler::State::Penalise(std::span<float> logits) const {
  const auto repetition = static_cast<float>(params.repetition_penalty);
  if (repetition != 1) {
    for (const text::TokenId id : seen) {
      if (static_cast<size_t>(id) >= logits.size()) continue;
      float& logit = logits[static_cast<size_t>(id)];
      logit = logit > 0 ? logit / repetition : logit * repetition;
    }
  }
  if (params.frequency_penalty == 0 && params.presence_penalty == 0) return;
  for (const auto& [id, count] : in_completion) {
    const double penalty =
        params.frequency_penalty * static_cast<double>(count) + params.presence_penalty;
    logits[static_cast<size_t>(id)] -= static_cast<float>(penalty);
  }
}

text::TokenId Sampler::State::Sample(std::span<float> logits) {
  const auto temperature = static_cast<float>(params.temperature);
  for (float& logit : logits) logit /= temperature;
  KeepTopK(logits, params.top_k);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kDropped) candidates.push_back({logits[i], static_cast<text::TokenId>(i)});
  }
  if (candidates.empty()) return 0;  // nothing but NaN: as Argmax answers
  KeepTopP(candidates, params.top_p);
  return Draw(candidates, random.Uniform());
}

Sampler::Sampler(const SamplingParams& params, uint64_t item_index,
                 std::span<const text::TokenId> prompt)
    : state_(new State{params, Random(params.seed, item_index), {}, {}}) {
  if (params.repetition_penalty != 1) state_->seen.insert(prompt.begin(), prompt.end());
}

Sampler::~Sampler() = default;

text::TokenId Sampler::Next(std::span<float> logits) {
  State& state = *state_;
  state.Penalise(logits);
  const text::TokenId id = state.params.is_greedy()
                               ? static_cast<text::TokenId>(kernels::Argmax(
                                     logits.data(), static_cast<int64_t>(logits.size())))
                               : state.Sample(logits);
  if (state.params.repetition_penalty != 1) state.seen.insert(id);
  ++state.in_completion[id];
  return id;
}

}  // namespace flowmesh::engine
