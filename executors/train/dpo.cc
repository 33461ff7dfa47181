#include "executors/train/dpo.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "executors/train/attention.h"
#include "executors/train/head_loss.h"

namespace flowmesh::train {
namespace {

Answer MakeAnswer(const Ids& prompt, Ids answer, int64_t max_length) {
  Answer result = {.ids = prompt, .prompt_tokens = static_cast<int64_t>(prompt.size())};
  result.ids.insert(result.ids.end(), answer.begin(), answer.end());
  const int64_t excess = static_cast<int64_t>(result.ids.size()) - max_length;
  if (excess > 0) {
    result.ids.erase(result.ids.begin(), result.ids.begin() + excess);
    result.prompt_tokens = std::max<int64_t>(0, result.prompt_tokens - excess);
  }
  return result;
}

}  // namespace

PreferencePair MakePair(const std::string& prompt, const std::string& chosen,
                        const std::string& rejected, const text::Tokenizer& tokenizer,
                        text::TokenId eos, const DpoLimits& limits) {
  Ids prompt_ids = tokenizer.Encode(prompt, /*add_special_tokens=*/false);
  const int64_t excess = static_cast<int64_t>(prompt_ids.size()) - limits.max_prompt_length;
  if (excess > 0) prompt_ids.erase(prompt_ids.begin(), prompt_ids.begin() + excess);
  const auto answer = [&](const std::string& text) {
    Ids ids = tokenizer.Encode(text, /*add_special_tokens=*/false);
    ids.push_back(eos);
    return MakeAnswer(prompt_ids, std::move(ids), limits.max_length);
  };
  return {answer(chosen), answer(rejected)};
}

DpoRecipe::Scored DpoRecipe::Score(const std::vector<int64_t>& rows) const {
  std::vector<const Answer*> answers;
  for (const int64_t row : rows) answers.push_back(&(*pairs_)[static_cast<size_t>(row)].chosen);
  for (const int64_t row : rows) answers.push_back(&(*pairs_)[static_cast<size_t>(row)].rejected);
  std::vector<const Ids*> sequences;
  // The places that predict an answer's tokens, and whose answer each belongs to.
  std::vector<int64_t> places, owners;
  int64_t begin = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto length = static_cast<int64_t>(answers[i]->ids.size());
    sequences.push_back(&answers[i]->ids);
    for (int64_t t = std::max<int64_t>(1, answers[i]->prompt_tokens); t < length; ++t) {
      places.push_back(begin + t - 1);
      owners.push_back(static_cast<int64_t>(i));
    }
    begin += length;
  }
  // Answers of one token without a prompt have nothing to predict. Their pass is run all the same:
  // in it other ranks wait for this one (sft.cc).
  const auto predicted = static_cast<int64_t>(places.size());
  if (predicted == 0) places.push_back(0);
  const at::Device device = model_->device();
  FlatBatch batch = MakeFlatBatch(sequences, device);
  batch.input.logit_rows = IndexTensor(places, device);
  const at::Tensor targets = batch.input.token_ids.index_select(0, batch.input.logit_rows + 1);
  auto attention = std::make_unique<SequenceAttention>(batch.lengths);
  const at::Tensor hidden = model_->Hidden(batch.input, *attention);
  const TokenScores scores =
      LogProbs(hidden, {model_->head(), model_->config().logit_soft_cap}, targets, false);
  const at::Tensor log_probs = scores.log_probs.narrow(0, 0, predicted);
  const at::Tensor zeros = at::zeros({static_cast<int64_t>(answers.size())}, log_probs.options());
  return {zeros.index_add(0, IndexTensor(owners, device), log_probs), batch.tokens,
          std::move(attention)};
}

absl::Status DpoRecipe::Prepare(
    int64_t batch_size, TrainedWeights& weights, parallel::ProcessGroup& group,
    const std::function<absl::Status(int64_t done, int64_t total)>& on_progress) {
  const at::NoGradGuard no_grad;
  const auto total = static_cast<int64_t>(pairs_->size());
  reference_ = at::zeros({2, total}, at::TensorOptions(at::kFloat).device(model_->device()));
  // Every rank runs as many passes: in ZeRO's third stage a pass is a collective.
  const int64_t round = batch_size * group.world_size();
  for (int64_t first = 0; first < total; first += round) {
    RETURN_IF_ERROR(on_progress(first, total));
    std::vector<int64_t> rows;
    const int64_t begin = first + group.rank() * batch_size;
    for (int64_t row = begin; row < std::min(total, begin + batch_size); ++row) rows.push_back(row);
    const bool is_idle = rows.empty();
    if (is_idle) rows.push_back(0);
    RETURN_IF_ERROR(weights.BeginUse(/*with_layers=*/false));
    const at::Tensor scores = Score(rows).log_probs.view({2, -1});
    weights.EndUse();
    if (!is_idle) reference_.narrow(1, begin, scores.size(1)).copy_(scores);
  }
  return group.AllReduceSum(reference_).Wait();
}

absl::Status DpoRecipe::BeginStep(const StepBatches& batches, parallel::ProcessGroup& group) {
  share_ = 1.0 / (static_cast<double>(batches.batches.size()) * group.world_size());
  return absl::OkStatus();
}

absl::StatusOr<PassReport> DpoRecipe::Pass(const std::vector<int64_t>& rows, double loss_scale) {
  const Scored scored = Score(rows);
  const at::Tensor log_probs = scored.log_probs.view({2, -1});  // [chosen or rejected, pairs]
  const at::Tensor reference = reference_.index_select(1, IndexTensor(rows, model_->device()));
  const at::Tensor rewards = options_.beta * (log_probs - reference);
  const at::Tensor margins = rewards[0] - rewards[1];
  const double smoothing = options_.label_smoothing;
  const at::Tensor losses =
      -at::log_sigmoid(margins) * (1 - smoothing) - at::log_sigmoid(-margins) * smoothing;
  const at::Tensor loss = losses.mean();
  (loss * (share_ * loss_scale)).backward();

  const at::NoGradGuard no_grad;
  PassReport report;
  report.loss = loss.item<double>() * share_;
  report.tokens = scored.tokens;
  const auto mean = [&](const char* name, const at::Tensor& values) {
    report.metrics[name] = {values.sum().item<double>(), static_cast<double>(values.numel())};
  };
  mean("rewards/chosen", rewards[0]);
  mean("rewards/rejected", rewards[1]);
  mean("rewards/accuracies", (margins > 0).to(at::kFloat));
  mean("rewards/margins", margins);
  mean("logps/chosen", log_probs[0]);
  mean("logps/rejected", log_probs[1]);
  return report;
}

}  // namespace flowmesh::train
