// Supervised fine-tuning: every token of a row is to be predicted from those before it (TASKS.md
// 4.4). Full weights or adapters, that is the weights' business.
#pragma once

#include <cstdint>
#include <vector>

#include "executors/model/decoder.h"
#include "executors/train/flat_batch.h"
#include "executors/train/trainer.h"

namespace flowmesh::train {

// A row of the training set: one document, or several that do not see each other (packing).
using SftRow = std::vector<Ids>;

// Ids of the texts, each with the tokenizer's EOS text unless it ends with that, cut to
// `max_length` tokens from the right; with `packing` as rows of several documents. Texts without a
// token give no row. FailedPrecondition: the tokenizer has no EOS token.
absl::StatusOr<std::vector<SftRow>> MakeSftRows(const std::vector<std::string>& texts,
                                                const text::Tokenizer& tokenizer,
                                                int64_t max_length, bool packing);

class SftRecipe : public Recipe {
 public:
  // `is_packed`: a document's first token is no label, and not counted as one.
  SftRecipe(model::Decoder* model, const std::vector<SftRow>* rows, bool is_packed)
      : model_(model), rows_(rows), is_packed_(is_packed) {}

  absl::Status BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) override;
  absl::StatusOr<PassReport> Pass(const std::vector<int64_t>& rows, double loss_scale) override;

 private:
  std::vector<const Ids*> Documents(const std::vector<int64_t>& rows) const;

  model::Decoder* const model_;
  const std::vector<SftRow>* const rows_;
  const bool is_packed_;
  double labels_ = 0;  // of the step, all ranks
};

}  // namespace flowmesh::train
