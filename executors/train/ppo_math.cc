#include "executors/train/ppo_math.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/maximum.h>

#include <cmath>

namespace flowmesh::train {
namespace {

// The KL penalty at each token, and the score at the last place.
PlaceRows Rewards(const RolloutNumbers& rollout, double kl_coef) {
  PlaceRows rewards;
  for (size_t i = 0; i < rollout.values.size(); ++i) {
    std::vector<float>& row = rewards.emplace_back(rollout.values[i].size(), 0.0f);
    for (size_t t = 0; t < rollout.log_probs[i].size(); ++t) {
      const float kl = rollout.log_probs[i][t] - rollout.reference_log_probs[i][t];
      row[t] = static_cast<float>(-kl_coef * kl);
    }
    row.back() += static_cast<float>(rollout.scores[i]);
  }
  return rewards;
}

// Generalised advantage estimation for one response: an advantage at each place of its values.
std::vector<float> Advantages(const std::vector<float>& rewards, const std::vector<float>& values,
                              const EstimateOptions& options) {
  std::vector<float> advantages(values.size());
  double value_after = 0, advantage_after = 0;
  for (size_t t = values.size(); t-- > 0;) {
    const double delta = rewards[t] + options.gamma * value_after - values[t];
    advantage_after = delta + options.gamma * options.lam * advantage_after;
    advantages[t] = static_cast<float>(advantage_after);
    value_after = values[t];
  }
  return advantages;
}

at::Tensor ShareLarger(const at::Tensor& clamped, const at::Tensor& plain) {
  return (clamped > plain).to(at::kFloat).mean();
}

}  // namespace

void Whiten(PlaceRows& rows, bool keep_mean) {
  double count = 0, sum = 0;
  for (const std::vector<float>& row : rows) {
    for (const float x : row) sum += x;
    count += static_cast<double>(row.size());
  }
  const double mean = sum / count;
  double squares = 0;
  for (const std::vector<float>& row : rows) {
    for (const float x : row) squares += (x - mean) * (x - mean);
  }
  const double variance = count > 1 ? squares / (count - 1) : 0.0;
  const double factor = 1.0 / std::sqrt(variance + 1e-8);
  const double kept = keep_mean ? mean : 0.0;
  for (std::vector<float>& row : rows) {
    for (float& x : row) x = static_cast<float>((x - mean) * factor + kept);
  }
}

Estimates Estimate(const RolloutNumbers& rollout, const EstimateOptions& options) {
  Estimates estimates;
  estimates.rewards = Rewards(rollout, options.kl_coef);
  if (options.whiten_rewards) Whiten(estimates.rewards, /*keep_mean=*/true);
  for (size_t i = 0; i < rollout.values.size(); ++i) {
    const std::vector<float>& values = rollout.values[i];
    std::vector<float> advantages = Advantages(estimates.rewards[i], values, options);
    std::vector<float>& returns = estimates.returns.emplace_back(values.size());
    for (size_t t = 0; t < values.size(); ++t) returns[t] = advantages[t] + values[t];
    advantages.resize(rollout.log_probs[i].size());
    estimates.advantages.push_back(std::move(advantages));
  }
  Whiten(estimates.advantages, /*keep_mean=*/false);
  return estimates;
}

ClippedLoss PolicyLoss(const at::Tensor& ratio, const at::Tensor& advantages, double clip_range) {
  const at::Tensor plain = -advantages * ratio;
  const at::Tensor clamped = -advantages * at::clamp(ratio, 1.0 - clip_range, 1.0 + clip_range);
  return {at::maximum(plain, clamped).mean(), ShareLarger(clamped, plain)};
}

ClippedLoss ValueLoss(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip_range) {
  const at::Tensor plain = (values - returns).square();
  const at::Tensor near_old = at::clamp(values, old_values - clip_range, old_values + clip_range);
  const at::Tensor clamped = (near_old - returns).square();
  return {0.5 * at::maximum(plain, clamped).mean(), ShareLarger(clamped, plain)};
}

}  // namespace flowmesh::train
