// Activation checkpointing: a forward pass keeps only what goes into each layer, and the backward
// pass computes the rest anew, with the same random numbers. Results do not change.
#pragma once

#include <functional>

#include "executors/model/decoder.h"

namespace flowmesh::train {

// What is to happen around the layers of a step; any may be empty. Forward ones are called on the
// thread that runs the step, backward ones on that of the backward pass, which it waits for.
struct LayerHooks {
  std::function<void(int layer)> before_forward;
  std::function<void(int layer)> after_forward;
  std::function<void(int layer)> before_backward;
  // The gradients of the layer's weights are complete.
  std::function<void(int layer)> after_backward;
};

// One thread at a time. Must outlive the backward passes of the forward passes that it ran.
class TrainingLayerRunner : public model::LayerRunner {
 public:
  TrainingLayerRunner(bool recompute, LayerHooks hooks)
      : recompute_(recompute), hooks_(std::move(hooks)) {}

  at::Tensor Run(int index, const Layer& layer, const at::Tensor& x) override;

 private:
  const bool recompute_;
  const LayerHooks hooks_;
};

}  // namespace flowmesh::train
