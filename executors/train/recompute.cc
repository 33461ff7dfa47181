#include "executors/train/recompute.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <optional>

namespace flowmesh::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// The default generator of a device, which dropout draws from.
const at::Generator& GeneratorOf(at::Device device) {
  return at::globalContext().defaultGenerator(device);
}

at::Tensor GeneratorState(at::Device device) {
  at::Generator generator = GeneratorOf(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}

void SetGeneratorState(at::Device device, const at::Tensor& state) {
  at::Generator generator = GeneratorOf(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

void Call(const std::function<void(int)>& hook, int layer) {
  if (hook) hook(layer);
}

// What both functions below carry from forward to backward.
struct LayerCall : torch::CustomClassHolder {
  int index = 0;
  model::LayerRunner::Layer layer;
  const LayerHooks* hooks = nullptr;
};
using LayerCallPtr = c10::intrusive_ptr<LayerCall>;

class RecomputedLayer : public Function<RecomputedLayer> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const LayerCallPtr& call) {
    ctx->saved_data["generator"] = GeneratorState(x.device());
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    ctx->save_for_backward({x});
    const at::NoGradGuard no_grad;
    return call->layer(x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto call =
        c10::static_intrusive_pointer_cast<LayerCall>(ctx->saved_data["call"].toCapsule());
    Call(call->hooks->before_backward, call->index);
    at::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    const at::Tensor now = GeneratorState(x.device());
    SetGeneratorState(x.device(), ctx->saved_data["generator"].toTensor());
    at::Tensor y;
    {
      const at::AutoGradMode with_grad(true);
      y = call->layer(x);
    }
    SetGeneratorState(x.device(), now);
    torch::autograd::backward({y}, {gradients[0]});
    Call(call->hooks->after_backward, call->index);
    return {x.grad(), {}};
  }
};

// Passes x on, and calls a hook when its gradient has come back: behind a layer before the layer's
// backward pass begins, in front of it when that is over, since the gradient of a layer's input
// comes last.
class LayerBoundary : public Function<LayerBoundary> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const LayerCallPtr& call,
                            bool is_behind) {
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    ctx->saved_data["is_behind"] = is_behind;
    return x.view_as(x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const auto call =
        c10::static_intrusive_pointer_cast<LayerCall>(ctx->saved_data["call"].toCapsule());
    const bool is_behind = ctx->saved_data["is_behind"].toBool();
    Call(is_behind ? call->hooks->before_backward : call->hooks->after_backward, call->index);
    return {gradients[0], {}, {}};
  }
};

}  // namespace

at::Tensor TrainingLayerRunner::Run(int index, const Layer& layer, const at::Tensor& x) {
  Call(hooks_.before_forward, index);
  at::Tensor y;
  if (!at::GradMode::is_enabled()) {
    y = layer(x);
  } else {
    const LayerCallPtr call = c10::make_intrusive<LayerCall>();
    call->index = index;
    call->layer = layer;
    call->hooks = &hooks_;
    // Nothing below may want a gradient (embeddings that are frozen), but the layer's weights do.
    const at::Tensor input = x.requires_grad() ? x : x.detach().requires_grad_(true);
    if (recompute_) {
      y = RecomputedLayer::apply(input, call);
    } else {
      y = layer(LayerBoundary::apply(input, call, /*is_behind=*/false));
      y = LayerBoundary::apply(y, call, /*is_behind=*/true);
    }
  }
  Call(hooks_.after_forward, index);
  return y;
}

}  // namespace flowmesh::train
