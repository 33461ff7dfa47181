// DistilBERT: no segment types, no pooler; classes from a head of two layers on the first token.
#include <ATen/ops/relu.h>

#include <optional>

#include "executors/model/encoder.h"

namespace flowmesh::model {
namespace {

EncoderNames Names() {
  return {.body = "distilbert",
          .layers = "transformer.layer",
          .attention = "attention",
          .qkv = {"q_lin", "k_lin", "v_lin"},
          .attention_output = "attention.out_lin",
          .attention_norm = "sa_layer_norm",
          .up = "ffn.lin1",
          .down = "ffn.lin2",
          .norm = "output_layer_norm"};
}

class DistilBert : public Encoder {
 public:
  DistilBert(const EncoderConfig& c, int64_t classes) : Encoder(c, Names()) {
    if (classes == 0) return;
    pre_classifier_.emplace(scope() / "pre_classifier", c.hidden_size, c.hidden_size, true,
                            Split::kNone);
    classifier_.emplace(scope() / "classifier", c.hidden_size, classes, true, Split::kNone);
  }

  at::Tensor Classify(const at::Tensor& first) const override {
    return (*classifier_)(at::relu((*pre_classifier_)(first)));
  }

 private:
  std::optional<Linear> pre_classifier_, classifier_;
};

}  // namespace

std::unique_ptr<Encoder> MakeDistilBert(const EncoderConfig& config, int64_t classes) {
  return std::make_unique<DistilBert>(config, classes);
}

}  // namespace flowmesh::model
