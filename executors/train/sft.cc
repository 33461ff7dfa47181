#include "executors/train/sft.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/train/attention.h"
#include "executors/train/head_loss.h"
#include "executors/train/packing.h"

namespace flowmesh::train {

absl::StatusOr<std::vector<SftRow>> MakeSftRows(const std::vector<std::string>& texts,
                                                const text::Tokenizer& tokenizer,
                                                int64_t max_length, bool packing) {
  if (!tokenizer.eos_id()) {
    return absl::FailedPreconditionError("the tokenizer has no EOS token, which training needs");
  }
  const std::string eos = tokenizer.TokenText(*tokenizer.eos_id());
  std::vector<Ids> documents;
  std::vector<int64_t> lengths;
  for (const std::string& text : texts) {
    const bool is_ended = absl::EndsWith(ToAbsl(text), ToAbsl(eos));
    Ids ids = tokenizer.Encode(is_ended ? text : text + eos, /*add_special_tokens=*/true);
    ids.resize(std::min(ids.size(), static_cast<size_t>(max_length)));
    if (ids.empty()) continue;
    lengths.push_back(static_cast<int64_t>(ids.size()));
    documents.push_back(std::move(ids));
  }
  std::vector<SftRow> rows;
  if (packing) {
    for (const std::vector<int64_t>& row : PackBestFit(lengths, max_length)) {
      SftRow& packed = rows.emplace_back();
      for (const int64_t i : row) packed.push_back(std::move(documents[static_cast<size_t>(i)]));
    }
  } else {
    for (Ids& document : documents) rows.emplace_back().push_back(std::move(document));
  }
  return rows;
}

std::vector<const Ids*> SftRecipe::Documents(const std::vector<int64_t>& rows) const {
  std::vector<const Ids*> documents;
  for (const int64_t row : rows) {
    for (const Ids& document : (*rows_)[static_cast<size_t>(row)]) documents.push_back(&document);
  }
  return documents;
}

absl::Status SftRecipe::BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) {
  int64_t labels = 0;
  for (const std::vector<int64_t>& rows : batches.batches) {
    for (const Ids* document : Documents(rows)) {
      labels += static_cast<int64_t>(document->size()) - (is_packed_ ? 1 : 0);
    }
  }
  std::vector<double> sum = {static_cast<double>(labels)};
  RETURN_IF_ERROR(group.SumNumbers(sum));
  labels_ = sum[0];
  return absl::OkStatus();
}

absl::StatusOr<PassReport> SftRecipe::Pass(const std::vector<int64_t>& rows, double loss_scale) {
  FlatBatch batch = MakeFlatBatch(Documents(rows), model_->device());
  // All places but the last of each document predict the token that follows them.
  std::vector<int64_t> places;
  int64_t begin = 0;
  for (const int64_t length : batch.lengths) {
    for (int64_t i = 0; i + 1 < length; ++i) places.push_back(begin + i);
    begin += length;
  }
  PassReport report;
  report.tokens = batch.tokens;
  Ratio& accuracy = report.metrics["mean_token_accuracy"];
  // Documents of one token have nothing to predict. The pass is run all the same, with gradients of
  // zero: the layers' collectives begin in it, and other ranks may have more to do in theirs.
  const bool is_idle = places.empty();
  if (is_idle) places.push_back(0);
  batch.input.logit_rows = IndexTensor(places, model_->device());
  SequenceAttention attention(batch.lengths);
  const at::Tensor hidden = model_->Hidden(batch.input, attention);
  if (is_idle) {
    hidden.backward(at::zeros_like(hidden));
    return report;
  }
  const at::Tensor targets = batch.input.token_ids.index_select(0, batch.input.logit_rows + 1);
  const TokenLoss loss = CrossEntropy(hidden, {model_->head(), model_->config().logit_soft_cap},
                                      targets, loss_scale / labels_);
  loss.loss.backward();
  report.loss = loss.loss.item<double>() / loss_scale;
  accuracy = {static_cast<double>(loss.correct), static_cast<double>(places.size())};
  return report;
}

}  // namespace flowmesh::train
