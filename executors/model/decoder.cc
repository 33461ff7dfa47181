#include "executors/model/decoder.h"

#include <algorithm>

#include "executors/kernels/linear.h"

namespace flowmesh::model {

Decoder::Decoder(const ModelConfig& config, const Precision& precision, at::Device device)
    : config_(config), precision_(precision), device_(device) {
  info_.family = config.model_type;
  info_.vocab_size = config.vocab_size;
  info_.hidden_size = config.hidden_size;
  info_.num_layers = config.num_layers;
  info_.num_heads = config.num_heads;
  info_.num_kv_heads = config.num_kv_heads;
  info_.head_dim = config.head_dim;
  info_.max_positions = config.max_positions;
  AddEosIds(config.eos_ids);
}

at::Tensor Decoder::Forward(const ForwardInput& input, Attention& attention) {
  const at::Tensor hidden = Hidden(input, attention);
  return SoftCap(head_ ? (*head_)(hidden) : kernels::Linear(hidden, head(), at::Tensor()),
                 config_.logit_soft_cap);
}

void Decoder::MakeHead() {
  head_.emplace(scope() / "lm_head", config_.hidden_size, config_.vocab_size, false, Split::kRows);
}

void Decoder::Untie() {
  at::Tensor weight = embeddings().clone();
  MakeHead();
  *parameters_.all().back().tensor = std::move(weight);
  config_.tie_word_embeddings = false;
  info_.num_parameters = parameters_.numel();
}

at::Tensor Decoder::Hidden(const ForwardInput& input, Attention& attention) {
  at::Tensor hidden = HiddenStates(input, attention);
  if (input.logit_rows.defined()) hidden = hidden.index_select(0, input.logit_rows);
  return FinalNorm(hidden).to(dtype());
}

absl::Status Decoder::Load(const WeightSource& source, const LoadOptions& options,
                           std::vector<std::string>* warnings) {
  const Precision stored = options.master_weights ? Precision{at::kFloat} : precision_;
  RETURN_IF_ERROR(LoadParameters(parameters_, source, stored, device_, options.progress));
  info_.num_parameters = parameters_.numel();
  WarnOfUnused({&parameters_}, source, warnings);
  return absl::OkStatus();
}

void Decoder::AddEosIds(const std::vector<text::TokenId>& ids) {
  for (text::TokenId id : ids) {
    if (std::find(info_.eos_ids.begin(), info_.eos_ids.end(), id) == info_.eos_ids.end()) {
      info_.eos_ids.push_back(id);
    }
  }
}

std::unique_ptr<Decoder> MakeDecoder(const ModelConfig& config, const Precision& precision,
                                     at::Device device) {
  switch (config.family) {
    case Family::kGpt2:
      return MakeGpt2(config, precision, device);
    case Family::kGemma2:
    case Family::kGemma3:
      return MakeGemma(config, precision, device);
    case Family::kLlama:
    case Family::kMistral:
    case Family::kQwen2:
    case Family::kQwen3:
      break;
  }
  return MakeLlama(config, precision, device);
}

}  // namespace flowmesh::model
