// What the families have in common: configuration, parameters, and the frame of a forward pass.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "executors/model/causal_lm.h"
#include "executors/model/config.h"
#include "executors/model/layers.h"
#include "executors/model/parameters.h"

namespace flowmesh::model {

// Runs the layers of a forward pass, for whoever has something to do before and after each: a
// trainer, which computes activations anew in the backward pass and gathers weights from other
// ranks.
class LayerRunner {
 public:
  virtual ~LayerRunner() = default;

  // The result of `layer` (index from 0) for x: [tokens, hidden] -> [tokens, hidden]. `layer` may
  // be called again until the backward pass is over.
  using Layer = std::function<at::Tensor(const at::Tensor& x)>;
  virtual at::Tensor Run(int index, const Layer& layer, const at::Tensor& x) = 0;
};

// Built without memory for its weights; Load gives them.
class Decoder : public CausalLm {
 public:
  at::Tensor Forward(const ForwardInput& input, Attention& attention) override;

  // The same up to the head: the hidden states after the final norm, [rows, hidden], of dtype().
  at::Tensor Hidden(const ForwardInput& input, Attention& attention);
  // The output head, [vocab, hidden]; of a tied model the embeddings.
  const at::Tensor& head() const { return head_ ? head_->weight() : embeddings(); }
  // Gives a tied model a head of its own, as the embeddings are now; after Load.
  void Untie();

  // For forward passes from here on; null: layers just run. Not owned.
  void set_layer_runner(LayerRunner* runner) { layer_runner_ = runner; }
  // As the configuration says, or none: off until it is switched on.
  void set_dropout(bool on) { dropout_ = on ? config_.dropout : DropoutRates(); }

  const ModelInfo& info() const override { return info_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return precision_.dtype; }
  const ModelConfig& config() const { return config_; }

  // Every weight, to train, save or count. A head that is tied is not listed again.
  const ParameterList& parameters() const { return parameters_; }

  // Fills all parameters. Adds a warning when the source holds tensors that none of them reads.
  // Errors as LoadParameters.
  absl::Status Load(const WeightSource& source, const LoadOptions& options,
                    std::vector<std::string>* warnings);
  // Adds to the EOS set, unless it is there.
  void AddEosIds(const std::vector<text::TokenId>& ids);

 protected:
  Decoder(const ModelConfig& config, const Precision& precision, at::Device device);

  // The token embeddings, [vocab, hidden].
  virtual const at::Tensor& embeddings() const = 0;
  // The hidden states before the final norm: [tokens, hidden]. Goes through RunLayer.
  virtual at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) = 0;
  // The final norm: [rows, hidden] -> [rows, hidden].
  virtual at::Tensor FinalNorm(const at::Tensor& hidden) = 0;

  // Registers a head that is not tied; the constructor's last step.
  void MakeHead();

  at::Tensor RunLayer(int index, const LayerRunner::Layer& layer, const at::Tensor& x) {
    return layer_runner_ == nullptr ? layer(x) : layer_runner_->Run(index, layer, x);
  }
  const DropoutRates& dropout() const { return dropout_; }
  // The dtype of embeddings as they are looked up, and of rotary tables.
  at::ScalarType beside_products() const { return precision_.beside_products(); }
  ParameterScope scope() { return ParameterScope(&parameters_); }

 private:
  ModelConfig config_;
  const Precision precision_;
  const at::Device device_;
  ModelInfo info_;
  ParameterList parameters_;
  std::optional<Linear> head_;  // absent: tied to the embeddings
  LayerRunner* layer_runner_ = nullptr;
  DropoutRates dropout_;
};

// The family's model, without weights yet.
std::unique_ptr<Decoder> MakeDecoder(const ModelConfig& config, const Precision& precision,
                                     at::Device device);
// One per file of families.
std::unique_ptr<Decoder> MakeLlama(const ModelConfig& config, const Precision& precision,
                                   at::Device device);
std::unique_ptr<Decoder> MakeGemma(const ModelConfig& config, const Precision& precision,
                                   at::Device device);
std::unique_ptr<Decoder> MakeGpt2(const ModelConfig& config, const Precision& precision,
                                  at::Device device);

}  // namespace flowmesh::model
