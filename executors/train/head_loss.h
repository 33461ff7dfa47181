// Losses of a language model computed from its hidden states, a few rows at a time: the logits of a
// whole batch, which a vocabulary of 262,144 makes the largest thing of a step by far, never exist
// at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace flowmesh::train {

// Logits are softcap(hidden Wᵀ) / temperature, in float32.
struct Head {
  at::Tensor weight;         // [vocab, hidden]
  double soft_cap = 0;       // c * tanh(x / c); 0: none
  double temperature = 1.0;  // divides the logits
};

struct TokenLoss {
  at::Tensor loss;      // scalar float32, differentiable: the sum over tokens of -log p, scaled
  int64_t correct = 0;  // tokens whose logit no other exceeds
};

// hidden: [rows, hidden] of the places that predict `targets` [rows] int64. The loss is `scale`
// times the sum of the targets' negative log-probabilities. Gradients are computed here and now, so
// the loss must be used with a factor of 1 (that of the head's weight is added to its grad() at
// once).
TokenLoss CrossEntropy(const at::Tensor& hidden, const Head& head, const at::Tensor& targets,
                       double scale);

struct TokenScores {
  at::Tensor log_probs;  // [rows] float32, differentiable
  at::Tensor entropy;    // [rows] float32, of the distribution; not differentiable
};

// The targets' log-probabilities, whose gradients are known only later: the backward pass computes
// the logits anew. `with_entropy`: else that is undefined.
TokenScores LogProbs(const at::Tensor& hidden, const Head& head, const at::Tensor& targets,
                     bool with_entropy);

}  // namespace flowmesh::train
