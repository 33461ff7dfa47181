// The arithmetic of PPO: what a rollout's numbers become before the policy is optimised (TASKS.md
// 4.7, points 6 to 8), and the clipped losses (point 9). Nothing here knows of models.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace flowmesh::train {

// A number for each place of each response. Responses differ in length, and so do the rows: there
// is no padding.
using PlaceRows = std::vector<std::vector<float>>;

// With T the longest response's tokens: a response of n tokens has n places in log-probabilities
// and advantages, and min(n + 1, T) in values, rewards and returns, since the state behind its last
// token has a value too.
struct RolloutNumbers {
  PlaceRows log_probs, reference_log_probs;  // of the response's tokens
  PlaceRows values;
  std::vector<double> scores;  // of each response
};

struct EstimateOptions {
  double kl_coef = 0.05;
  double gamma = 1.0;
  double lam = 0.95;
  bool whiten_rewards = false;
};

struct Estimates {
  PlaceRows rewards;
  PlaceRows advantages;  // whitened
  PlaceRows returns;
};

Estimates Estimate(const RolloutNumbers& rollout, const EstimateOptions& options);

// Makes the deviation of all places together 1 (variance with n - 1; a single place's counts as 0),
// and their mean 0 or, with `keep_mean`, what it was.
void Whiten(PlaceRows& rows, bool keep_mean);

struct ClippedLoss {
  at::Tensor loss;  // scalar, differentiable: the mean over places
  // Scalar: the share of places where the clamped term is the larger one, so that nothing is
  // learned from them.
  at::Tensor clip_fraction;
};

// All arguments but the numbers: [places] float32.
ClippedLoss PolicyLoss(const at::Tensor& ratio, const at::Tensor& advantages, double clip_range);
ClippedLoss ValueLoss(const at::Tensor& values, const at::Tensor& old_values,
                      const at::Tensor& returns, double clip_range);

}  // namespace flowmesh::train
