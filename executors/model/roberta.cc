// RoBERTa: BERT's body; positions start behind the padding id and skip padding tokens; classes from
// a head of two layers on the first token.
#include <ATen/ops/tanh.h>

#include <optional>

#include "executors/model/encoder.h"

namespace flowmesh::model {
namespace {

class Roberta : public Encoder {
 public:
  Roberta(const EncoderConfig& c, int64_t classes) : Encoder(c, BertNames("roberta")) {
    if (classes == 0) return;
    dense_.emplace(scope() / "classifier.dense", c.hidden_size, c.hidden_size, true, Split::kNone);
    out_proj_.emplace(scope() / "classifier.out_proj", c.hidden_size, classes, true, Split::kNone);
  }

  at::Tensor Classify(const at::Tensor& first) const override {
    return (*out_proj_)(at::tanh((*dense_)(first)));
  }

  int64_t max_tokens() const override { return config().positions - config().pad_id - 1; }

 protected:
  // A text may spell the padding token: its position is the padding id, and it is not counted.
  std::vector<int64_t> Positions(const std::vector<text::TokenId>& row) const override {
    std::vector<int64_t> positions;
    int64_t last = config().pad_id;
    for (const text::TokenId id : row) {
      positions.push_back(id == config().pad_id ? config().pad_id : ++last);
    }
    return positions;
  }

 private:
  std::optional<Linear> dense_, out_proj_;
};

}  // namespace

std::unique_ptr<Encoder> MakeRoberta(const EncoderConfig& config, int64_t classes) {
  return std::make_unique<Roberta>(config, classes);
}

}  // namespace flowmesh::model
