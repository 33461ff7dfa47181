// What the families have in common: configuration, parameters, and the frame of a forward pass.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "executors/model/causal_lm.h"
#include "executors/model/config.h"
#include "executors/model/parameters.h"

namespace flowmesh::model {

// Built without memory for its weights; Load gives them.
class Decoder : public CausalLm {
 public:
  at::Tensor Forward(const ForwardInput& input, Attention& attention) override;

  const ModelInfo& info() const override { return info_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return dtype_; }
  const ModelConfig& config() const { return config_; }

  // Every weight, to train, save or count. A tied head is not listed again.
  const ParameterList& parameters() const { return parameters_; }

  // Fills all parameters. Adds a warning when the source holds tensors that none of them reads.
  // Errors as LoadParameters.
  absl::Status Load(const WeightSource& source, const LoadOptions& options,
                    std::vector<std::string>* warnings);
  // Adds to the EOS set, unless it is there.
  void AddEosIds(const std::vector<text::TokenId>& ids);

 protected:
  Decoder(const ModelConfig& config, at::ScalarType dtype, at::Device device);

  // The hidden states before the final norm: [tokens, hidden].
  virtual at::Tensor HiddenStates(const ForwardInput& input, Attention& attention) = 0;
  // The final norm and the head: [rows, hidden] -> [rows, vocab], in the model's dtype.
  virtual at::Tensor Logits(const at::Tensor& hidden) = 0;

  ParameterScope scope() { return ParameterScope(&parameters_); }

 private:
  const ModelConfig config_;
  const at::ScalarType dtype_;
  const at::Device device_;
  ModelInfo info_;
  ParameterList parameters_;
};

// The family's model, without weights yet.
std::unique_ptr<Decoder> MakeDecoder(const ModelConfig& config, at::ScalarType dtype,
                                     at::Device device);
// One per file of families.
std::unique_ptr<Decoder> MakeLlama(const ModelConfig& config, at::ScalarType dtype,
                                   at::Device device);
std::unique_ptr<Decoder> MakeGemma(const ModelConfig& config, at::ScalarType dtype,
                                   at::Device device);
std::unique_ptr<Decoder> MakeGpt2(const ModelConfig& config, at::ScalarType dtype,
                                  at::Device device);

}  // namespace flowmesh::model
