#include "executors/train/head_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <vector>

#include "executors/kernels/gradients.h"

namespace flowmesh::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// Logits that exist at a time; about 128 MB.
constexpr int64_t kMaxLogits = int64_t{1} << 25;

// Calls f(begin, count) for pieces of the rows.
void ForChunks(int64_t rows, int64_t vocab, const std::function<void(int64_t, int64_t)>& f) {
  const int64_t most = std::max<int64_t>(1, kMaxLogits / vocab);
  for (int64_t begin = 0; begin < rows; begin += most) f(begin, std::min(most, rows - begin));
}

// [rows, vocab] float32, capped, divided by the temperature.
at::Tensor Logits(const at::Tensor& hidden, const Head& head) {
  at::Tensor logits = at::linear(hidden, head.weight).to(at::kFloat);
  if (head.soft_cap != 0) logits = logits.div_(head.soft_cap).tanh_().mul_(head.soft_cap);
  if (head.temperature != 1.0) logits.div_(head.temperature);
  return logits;
}

// Hands a gradient of the logits, which it may overwrite, on to the hidden states and the weight.
void Backward(at::Tensor logit_gradient, const at::Tensor& logits, const at::Tensor& hidden,
              const Head& head, const at::Tensor& hidden_gradient) {
  if (head.temperature != 1.0) logit_gradient.div_(head.temperature);
  if (head.soft_cap != 0) {  // d tanh = 1 - tanh²
    const at::Tensor tanh = logits * (head.temperature / head.soft_cap);
    logit_gradient.mul_(1 - tanh.square_());
  }
  const at::Tensor gradient = logit_gradient.to(head.weight.scalar_type());
  if (hidden_gradient.defined()) hidden_gradient.copy_(at::mm(gradient, head.weight));
  if (head.weight.requires_grad()) kernels::AddProduct(gradient, hidden, head.weight);
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
    double sum = 0;
    ForChunks(hidden.size(0), weight.size(0), [&](int64_t begin, int64_t count) {
      const at::Tensor rows = hidden.narrow(0, begin, count);
      const at::Tensor wanted = targets.narrow(0, begin, count).unsqueeze(1);
      const at::Tensor logits = Logits(rows, head);
      *correct +=
          (logits.gather(1, wanted) >= logits.amax(-1, /*keepdim=*/true)).sum().item<int64_t>();
      at::Tensor log_probs = at::log_softmax(logits, -1);
      sum -= log_probs.gather(1, wanted).sum(at::kDouble).item<double>();
      if (!wants_gradient) return;
      at::Tensor gradient = log_probs.exp_();
      gradient.scatter_add_(1, wanted,
                            at::scalar_tensor(-1.0, gradient.options()).expand({count, 1}));
      gradient.mul_(scale);
      Backward(gradient, logits, rows, head,
               hidden_gradient.defined() ? hidden_gradient.narrow(0, begin, count) : at::Tensor());
    });
    ctx->save_for_backward({hidden_gradient});
    return at::scalar_tensor(sum * scale, hidden.options().dtype(at::kFloat));
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
    ForChunks(hidden.size(0), weight.size(0), [&](int64_t begin, int64_t count) {
      const at::Tensor log_probs =
          at::log_softmax(Logits(hidden.narrow(0, begin, count), head), -1);
      picked.push_back(
          log_probs.gather(1, targets.narrow(0, begin, count).unsqueeze(1)).squeeze(1));
      if (entropy != nullptr) entropies.push_back((log_probs.exp() * log_probs).sum(-1).neg_());
    });
    if (entropy != nullptr) *entropy = at::cat(entropies);
    return at::cat(picked);
  }

  // d log p(target) / d logits = onehot(target) - p.
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &targets = saved[2];
    const Head head = {saved[1], ctx->saved_data["soft_cap"].toDouble(),
                       ctx->saved_data["temperature"].toDouble()};
    const at::Tensor hidden_gradient =
        ctx->saved_data["hidden_wanted"].toBool() ? at::empty_like(hidden) : at::Tensor();
    ForChunks(hidden.size(0), head.weight.size(0), [&](int64_t begin, int64_t count) {
      const at::Tensor rows = hidden.narrow(0, begin, count);
      const at::Tensor wanted = targets.narrow(0, begin, count).unsqueeze(1);
      const at::Tensor factor = gradients[0].narrow(0, begin, count).unsqueeze(1);
      const at::Tensor logits = Logits(rows, head);
      at::Tensor gradient = at::log_softmax(logits, -1).exp_().mul_(-factor);
      gradient.scatter_add_(1, wanted, factor);
      Backward(gradient, logits, rows, head,
               hidden_gradient.defined() ? hidden_gradient.narrow(0, begin, count) : at::Tensor());
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
