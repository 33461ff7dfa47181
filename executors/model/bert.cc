// BERT: learned positions and segment types; classes from the pooled first token.
#include <ATen/ops/tanh.h>

#include <optional>

#include "executors/model/encoder.h"

namespace flowmesh::model {
namespace {

class Bert : public Encoder {
 public:
  Bert(const EncoderConfig& c, int64_t classes) : Encoder(c, BertNames("bert")) {
    if (classes == 0) return;
    pooler_.emplace(scope() / "bert.pooler.dense", c.hidden_size, c.hidden_size, true,
                    Split::kNone);
    classifier_.emplace(scope() / "classifier", c.hidden_size, classes, true, Split::kNone);
  }

  at::Tensor Classify(const at::Tensor& first) const override {
    return (*classifier_)(at::tanh((*pooler_)(first)));
  }

 private:
  std::optional<Linear> pooler_, classifier_;
};

}  // namespace

std::unique_ptr<Encoder> MakeBert(const EncoderConfig& config, int64_t classes) {
  return std::make_unique<Bert>(config, classes);
}

}  // namespace flowmesh::model
