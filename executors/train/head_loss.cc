#include "executors/train/head_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>
#include <vector>

#include "executors/kernels/gradients.h"
#include "executors/kernels/token_softmax.h"

namespace flowmesh::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Logits that exist at a time, in bytes.
constexpr int64_t kMaxLogitBytes = int64_t{256} << 20;

// Calls f(begin, space) for pieces of the rows, which `space` has rows of logits for: the same
// memory for each piece, whose pages would cost as much as a pass over them.
void ForChunks(const at::Tensor& hidden, const at::Tensor& weight,
               const std::function<void(int64_t, const at::Tensor&)>& f) {
  const int64_t rows = hidden.size(0), row_bytes = weight.size(0) * weight.element_size();
  const int64_t most = std::max<int64_t>(1, std::min(kMaxLogitBytes / row_bytes, rows));
  const at::Tensor space = at::empty({most, weight.size(0)}, weight.options().requires_grad(false));
  for (int64_t begin = 0; begin < rows; begin += most) {
    f(begin, space.narrow(0, 0, std::min(most, rows - begin)));
  }
}

// [rows, vocab] in the head's dtype, in `space` unless they are capped.
at::Tensor Logits(const at::Tensor& hidden, const Head& head, const at::Tensor& space) {
  at::Tensor logits = space;
  at::mm_out(logits, hidden, head.weight.t());
  if (head.soft_cap == 0) return logits;
  return logits.to(at::kFloat).div_(head.soft_cap).tanh_().mul_(head.soft_cap);
}

// Scores the targets [rows] of hidden [rows, hidden], and hands the gradient of
// -factors * log p(target) on: to the weight, and into `hidden_gradient` where that is defined.
kernels::TokenSoftmaxRows ScoreAndDiffer(const at::Tensor& hidden, const Head& head,
                                         const at::Tensor& targets, const at::Tensor& factors,
                                         const at::Tensor& hidden_gradient,
                                         const at::Tensor& space) {
  at::Tensor gradient = Logits(hidden, head, space);
  at::Tensor slope;  // of the cap: d tanh = 1 - tanh²
  if (head.soft_cap != 0) slope = 1 - (gradient / head.soft_cap).square_();
  const auto rows = kernels::TokenSoftmax(gradient, targets, head.temperature, factors,
                                          /*with_entropy=*/false);
  if (slope.defined()) gradient.mul_(slope);
  gradient = gradient.to(head.weight.scalar_type());
  if (hidden_gradient.defined()) hidden_gradient.copy_(at::mm(gradient, head.weight));
  if (head.weight.requires_grad()) kernels::AddProduct(gradient, hidden, head.weight);
  return rows;
}

kernels::TokenSoftmaxRows Score(const at::Tensor& hidden, const Head& head,
                                const at::Tensor& targets, const at::Tensor& space,
                                bool with_entropy) {
  at::Tensor logits = Logits(hidden, head, space);
  return kernels::TokenSoftmax(logits, targets, head.temperature, at::Tensor(), with_entropy);
}

// Rows begin..begin+count-1, or nothing of nothing.
at::Tensor Piece(const at::Tensor& tensor, int64_t begin, int64_t count) {
  return tensor.defined() ? tensor.narrow(0, begin, count) : tensor;
}

class CrossEntropyFunction : public Function<CrossEntropyFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& targets, double soft_cap,
                            double scale, int64_t* correct) {
    const Head head = {weight, soft_cap};
    const bool wants_gradient = hidden.requires_grad() || weight.requires_grad();
    const at::Tensor hidden_gradient =
        hidden.requires_grad() ? at::empty_like(hidden) : at::Tensor();
    const at::Tensor factors =
        at::full({hidden.size(0)}, scale, hidden.options().dtype(at::kFloat));
    // On the device, which is waited for once: of the targets' log-probabilities, and of the best.
    const at::Tensor sums = at::zeros({2}, hidden.options().dtype(at::kDouble));
    ForChunks(hidden, weight, [&](int64_t begin, const at::Tensor& space) {
      const int64_t count = space.size(0);
      const at::Tensor rows = Piece(hidden, begin, count), wanted = Piece(targets, begin, count);
      const auto scores = wants_gradient
                              ? ScoreAndDiffer(rows, head, wanted, Piece(factors, begin, count),
                                               Piece(hidden_gradient, begin, count), space)
                              : Score(rows, head, wanted, space, /*with_entropy=*/false);
      sums[0].add_(scores.log_probs.sum(at::kDouble));
      sums[1].add_(scores.is_best.sum(at::kDouble));
    });
    ctx->save_for_backward({hidden_gradient});
    const at::Tensor read = sums.cpu();
    *correct = std::llround(read[1].item<double>());
    return at::scalar_tensor(-read[0].item<double>() * scale, hidden.options().dtype(at::kFloat));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    return {ctx->get_saved_variables()[0], {}, {}, {}, {}, {}};
  }
};

class LogProbsFunction : public Function<LogProbsFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& targets, double soft_cap,
                            double temperature, at::Tensor* entropy) {
    const Head head = {weight, soft_cap, temperature};
    ctx->save_for_backward({hidden, weight, targets});
    ctx->saved_data["soft_cap"] = soft_cap;
    ctx->saved_data["temperature"] = temperature;
    ctx->saved_data["hidden_wanted"] = hidden.requires_grad();
    std::vector<at::Tensor> picked, entropies;
    ForChunks(hidden, weight, [&](int64_t begin, const at::Tensor& space) {
      const int64_t count = space.size(0);
      const auto scores = Score(Piece(hidden, begin, count), head, Piece(targets, begin, count),
                                space, entropy != nullptr);
      picked.push_back(scores.log_probs);
      if (entropy != nullptr) entropies.push_back(scores.entropy);
    });
    if (entropy != nullptr) *entropy = at::cat(entropies);
    return at::cat(picked);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &targets = saved[2];
    const Head head = {saved[1], ctx->saved_data["soft_cap"].toDouble(),
                       ctx->saved_data["temperature"].toDouble()};
    const at::Tensor hidden_gradient =
        ctx->saved_data["hidden_wanted"].toBool() ? at::empty_like(hidden) : at::Tensor();
    const at::Tensor factors = gradients[0].neg();
    ForChunks(hidden, head.weight, [&](int64_t begin, const at::Tensor& space) {
      const int64_t count = space.size(0);
      ScoreAndDiffer(Piece(hidden, begin, count), head, Piece(targets, begin, count),
                     Piece(factors, begin, count), Piece(hidden_gradient, begin, count), space);
    });
    return {hidden_gradient, {}, {}, {}, {}, {}};
  }
};

}  // namespace

TokenLoss CrossEntropy(const at::Tensor& hidden, const Head& head, const at::Tensor& targets,
                       double scale) {
  TokenLoss result;
  result.loss = CrossEntropyFunction::apply(hidden, head.weight, targets, head.soft_cap, scale,
                                            &result.correct);
  return result;
}

TokenScores LogProbs(const at::Tensor& hidden, const Head& head, const at::Tensor& targets,
                     bool with_entropy) {
  TokenScores scores;
  scores.log_probs =
      LogProbsFunction::apply(hidden, head.weight, targets, head.soft_cap, head.temperature,
                              with_entropy ? &scores.entropy : nullptr);
  return scores;
}

}  // namespace flowmesh::train
