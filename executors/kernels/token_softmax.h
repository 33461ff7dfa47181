// The softmax over a vocabulary where a loss looks at one token of each row: log-probability,
// entropy and gradient in one visit of each row, in place, since a row is long and a copy of all
// rows is the largest thing that a training makes.
#pragma once

#include <ATen/core/Tensor.h>

namespace flowmesh::kernels {

struct TokenSoftmaxRows {
  at::Tensor log_probs;  // [rows] float32: of the targets
  at::Tensor entropy;    // [rows] float32: of the whole rows; may be undefined if not wanted
  at::Tensor is_best;    // [rows] bool: no logit is above the target's
};

// logits: [rows, vocab], contiguous, any floating type, divided by `temperature` before all else;
// targets: [rows] int64. With `factors` [rows] float32, `logits` becomes the gradient of
// -factor * log p(target) by itself: factor * (p - onehot(target)) / temperature; without them it
// stays what it was.
TokenSoftmaxRows TokenSoftmax(at::Tensor& logits, const at::Tensor& targets, double temperature,
                              const at::Tensor& factors, bool with_entropy);

}  // namespace flowmesh::kernels
