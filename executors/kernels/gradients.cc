#include "executors/kernels/gradients.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace flowmesh::kernels {
namespace {

// Of a product of bfloat16 that is made besides: 16 MB, which the allocator keeps for the next one.
constexpr int64_t kMaxProductElements = int64_t{1} << 23;

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

at::Tensor Flat(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

class LinearFunction : public Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward(
        {weight.requires_grad() ? x : at::Tensor(), weight, bias.value_or(at::Tensor())});
    ctx->saved_data["x_wanted"] = x.requires_grad();
    return at::linear(x, weight, bias);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const at::Tensor y_gradient = Flat(gradients[0]);
    at::Tensor weight_gradient;
    if (weight.requires_grad() && weight.is_leaf()) {
      AddProduct(y_gradient, Flat(x), weight);
    } else if (weight.requires_grad()) {  // computed from another tensor, which gets it
      weight_gradient = at::mm(y_gradient.t(), Flat(x));
    }
    at::Tensor bias_gradient;
    if (bias.defined() && bias.requires_grad()) {
      bias_gradient = y_gradient.sum(0);
      if (bias.is_leaf()) GradientOf(bias).add_(std::exchange(bias_gradient, at::Tensor()));
    }
    if (!ctx->saved_data["x_wanted"].toBool()) return {{}, weight_gradient, bias_gradient};
    std::vector<int64_t> shape = gradients[0].sizes().vec();
    shape.back() = weight.size(1);
    return {at::mm(y_gradient, weight).view(shape), weight_gradient, bias_gradient};
  }
};

class EmbeddingFunction : public Function<EmbeddingFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight, const at::Tensor& ids,
                            at::ScalarType dtype) {
    ctx->save_for_backward({weight, ids});
    return at::embedding(weight, ids).to(dtype);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    at::Tensor& gradient = GradientOf(saved[0]);
    at::Tensor ids = saved[1], rows = gradients[0];
    if (gradient.scalar_type() != at::kFloat) {
      const auto [unique, place, unused] = at::_unique2(ids, /*sorted=*/true,
                                                        /*return_inverse=*/true);
      rows = at::zeros({unique.size(0), rows.size(1)}, rows.options().dtype(at::kFloat))
                 .index_add_(0, place, rows.to(at::kFloat))
                 .to(gradient.scalar_type());
      ids = unique;
    }
    if (gradient.is_sparse()) {
      gradient = gradient + at::sparse_coo_tensor(ids.reshape({1, -1}), rows, gradient.sizes(),
                                                  gradient.options());
    } else {
      gradient.index_add_(0, ids, rows);
    }
    return {{}, {}, {}};
  }
};

NormWeight Form(bool one_plus) { return one_plus ? NormWeight::kOnePlus : NormWeight::kPlain; }

class RmsNormFunction : public Function<RmsNormFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            double eps, bool one_plus) {
    if (IsOnePassNorm(x, weight, Form(one_plus))) {
      ctx->save_for_backward({x, weight});
      ctx->saved_data["eps"] = eps;
      ctx->saved_data["one_plus"] = one_plus;
      return RmsNorm(x, weight, eps, Form(one_plus));
    }
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor scale = at::rsqrt(wide.square().mean(-1, true) + eps);
    ctx->save_for_backward({x, weight, scale});
    ctx->saved_data["one_plus"] = one_plus;
    const at::Tensor normed = wide * scale;
    if (one_plus) return (normed * (weight.to(at::kFloat) + 1)).to(x.scalar_type());
    return weight * normed.to(x.scalar_type());
  }

  // With n = x * scale and y = n * w: dw = sum over rows of dy * n, and
  // dx = scale * (dy * w - n * mean(dy * w * n)).
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const NormWeight form = Form(ctx->saved_data["one_plus"].toBool());
    if (IsOnePassNorm(x, weight, form)) {
      const RmsNormGradients both =
          RmsNormBackward(x, weight, gradients[0], ctx->saved_data["eps"].toDouble(), form);
      if (weight.requires_grad()) GradientOf(weight).add_(both.weight);
      return {both.x, {}, {}, {}};
    }
    const at::Tensor& scale = saved[2];
    const at::Tensor y_gradient = gradients[0].to(at::kFloat);
    const at::Tensor normed = x.to(at::kFloat) * scale;
    if (weight.requires_grad()) GradientOf(weight).add_(Flat(y_gradient * normed).sum(0));
    at::Tensor factor = weight.to(at::kFloat);
    if (form == NormWeight::kOnePlus) factor = factor + 1;
    const at::Tensor n_gradient = y_gradient * factor;
    const at::Tensor along = (n_gradient * normed).mean(-1, true);
    return {((n_gradient - normed * along) * scale).to(x.scalar_type()), {}, {}, {}};
  }
};

class GatedFunction : public Function<GatedFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate, const at::Tensor& up,
                            bool is_silu) {
    ctx->save_for_backward({gate, up});
    ctx->saved_data["is_silu"] = is_silu;
    return Gated(gate, up, is_silu ? Gate::kSilu : Gate::kGeluTanh);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    GatedGradients both =
        GatedBackward(saved[0], saved[1], gradients[0],
                      ctx->saved_data["is_silu"].toBool() ? Gate::kSilu : Gate::kGeluTanh);
    return {std::move(both.gate), std::move(both.up), {}};
  }
};

// A rotation's gradient is turned back by the same angles.
class RotateFunction : public Function<RotateFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return Rotate(x, cos, sin);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    return {Rotate(gradients[0], saved[0], saved[1].neg()), {}, {}};
  }
};

}  // namespace

bool WantsGradient(std::initializer_list<at::Tensor> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

at::Tensor& GradientOf(const at::Tensor& weight) {
  at::Tensor& gradient = weight.mutable_grad();
  if (!gradient.defined()) gradient = at::zeros_like(weight);
  return gradient;
}

void AddProduct(const at::Tensor& y_gradient, const at::Tensor& x, const at::Tensor& weight) {
  at::Tensor& gradient = GradientOf(weight);
  if (x.scalar_type() == at::kFloat || !x.is_cpu()) {
    gradient.addmm_(y_gradient.t(), x);
    return;
  }
  // Adding while it multiplies, libtorch takes a detour through float32; and in pieces, since the
  // product is as large as the weight.
  const int64_t rows = weight.size(0);
  const int64_t piece = std::max<int64_t>(1, kMaxProductElements / weight.size(1));
  for (int64_t begin = 0; begin < rows; begin += piece) {
    const int64_t count = std::min(piece, rows - begin);
    gradient.narrow(0, begin, count).add_(at::mm(y_gradient.narrow(1, begin, count).t(), x));
  }
}

at::Tensor TrainedLinear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return LinearFunction::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor TrainedEmbedding(const at::Tensor& weight, const at::Tensor& ids, at::ScalarType dtype) {
  return EmbeddingFunction::apply(weight, ids, dtype);
}

at::Tensor TrainedRmsNorm(const at::Tensor& x, const at::Tensor& weight, double eps,
                          NormWeight form) {
  return RmsNormFunction::apply(x, weight, eps, form == NormWeight::kOnePlus);
}

at::Tensor TrainedGated(const at::Tensor& gate, const at::Tensor& up, Gate form) {
  return GatedFunction::apply(gate, up, form == Gate::kSilu);
}

at::Tensor TrainedRotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  return RotateFunction::apply(x, cos, sin);
}

}  // namespace flowmesh::kernels
